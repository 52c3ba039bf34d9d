# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,jupyter,mystnb,-all
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does the head do what it looks at?
#
# **The claim.** [Yu et al. 2024](../book/bibliography.md#yu2024emergence) (Fig. 7) call heads of CRATE
# *semantic*: one looks at legs, one at ears. Where a head looks is seen from outside; whether the answer
# rests on it, nobody has shown. A head may find the ears and hand on nothing that is used.
#
# **The test.** A network was asked which ears, legs, tail and muzzle an animal has, each of two kinds, so
# that its label answers four questions. The answer to each is read off its class probabilities. For
# every part, the head that finds it best is chosen *by its map alone*, by average precision within the
# animal, on half of the images; on the other half it is taken out, and the loss is counted in points of
# each question. Declared before the run:
#
# - *The one number*: the loss in the part's own question less the mean loss in the others.
# - *It counts* where its whole interval is above 0 under all four kinds of ablation: what the head hands
#   on is replaced by zero, by its mean over other images, by another image's, and by noise of the same
#   size. Zero and noise break things that a mean leaves whole; only together they speak of the head.
# - *The gate*: a question that the network answers right in fewer images than `gate` is shown and draws
#   no conclusion.
#
# Then the test is turned round: of two images that differ in one part only, what has to be put from one
# run into the other for the answer to change? And last, the halves of a layer are put to the same test.

# %% tags=["parameters"]
models: list[str] = ["crate-parts"]
dataset: str = "creatures-parts"
n_images: int = 64
n_twins: int = 24  # images that are drawn again with another part
n_rates: int = 16  # images whose coding rate is measured under each edit
gate: float = 0.8  # least share of right answers of a question that draws a conclusion
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.interventions import (
    carried,
    costs,
    head_costs,
    outcomes,
    questions_of,
    rank_agreement,
    record,
    replace_step,
    scale,
    skip,
)
from crate_analysis.measures import MEASURES, cross_fit, measure_layers
from crate_analysis.plotting import head_grid, layer_curves, reference_line
from crate_analysis.segmentation import Scoring, head_scores
from crate_analysis.study import Finding, Study
from crate_analysis.walk import Reading

study = Study(globals(), "18-interventions")

# %% [markdown]
# ## The measurement
#
# An edit changes one thing on the way through the network and lets it run on from there
# (`crate_analysis.interventions`). What is replaced is what a head *hands on*, before the output map:
# the one place where a head can be taken out alike in CRATE and in a ViT. The means and the other
# images' values come from the training split.

# %%
KINDS = ["zero", "mean", "resample", "noise"]


def take_out_heads(network):
    """What each head's ablation costs each question."""
    others = record(network.model, network.train_images, reading=study.reading)
    return head_costs(network.model, network.images, others, KINDS, study.reading, seed)


heads = study.each(take_out_heads, needs=["labels", "train"])
maps = study.each(
    lambda network: head_scores(
        network.model,
        network.images,
        Scoring(within=("object",), values=("average_precision",)),
        reading=study.reading,
    ),
    needs="parts",
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
names = questions_of(study.networks[0].images).names
asked = [name for name in names if len(maps) and (maps["mask"] == name).any()]
questions = [name for name in heads.question.unique() if name in names] if len(heads) else []
if asked:
    chosen = cross_fit(
        maps[maps["mask"].isin(asked)], ["layer", "head"], "average_precision", ["model", "mask"]
    )[["model", "mask", "image", "layer", "head", "average_precision"]]
    own = chosen.merge(heads, on=["model", "image", "layer", "head"])
else:
    chosen = own = pd.DataFrame()
right = heads.drop_duplicates(["model", "image", "question"]) if len(heads) else heads

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def passed(name):
    """The parts whose question passes the gate."""
    share = right[right.model == name].groupby("question").before.mean()
    return [part for part in asked if share[part] >= gate]


def beyond(frame, parts):
    """For each image, the loss in a part's own question less that in the others, over parts."""
    frame = frame[frame["mask"].isin(parts) & frame.question.isin(asked)]
    is_own = frame.question == frame["mask"]
    keys = ["image", "mask"]
    difference = frame[is_own].groupby(keys).right.mean() - frame[~is_own].groupby(keys).right.mean()
    return difference.groupby("image").mean()


def other_heads(name, parts):
    """The same loss in the part's own question, for the mean of all the other heads."""
    of = heads[(heads.model == name) & (heads.by == "mean") & heads.question.isin(parts)]
    picked = own[(own.model == name) & (own.by == "mean") & (own.question == own["mask"])]
    picked = picked[picked["mask"].isin(parts)].set_index(["image", "question"]).right
    total, count = (of.groupby(["image", "question"]).right.agg(how) for how in ("sum", "size"))
    rest = (total - picked) / (count - 1)
    return picked.groupby("image").mean(), rest.groupby("image").mean()


@study.report(
    "In {main} the answer {main[own question beyond the others, by mean]:rests on|does not rest on|"
    "cannot be said to rest on} the head that finds the part: taken out by its mean it costs the "
    "part's own question {main[own question beyond the others, by mean]:.0%} more than the others.",
    "By zero it is {main[own question beyond the others, by zero]:.0%}, by another image's "
    "{main[own question beyond the others, by resample]:.0%}, by noise of the same size "
    "{main[own question beyond the others, by noise]:.0%}.",
    "The other heads cost that question {main[mean of the other heads].mean:.1%} on average, the "
    "chosen one {main[the chosen head].mean:.1%}.",
    "Over all heads, how well a map finds a part and what the head's loss costs the part's question "
    "go together with a rank correlation of {main[precision and cost, own part].mean:.2f}; with the "
    "other parts' questions it is {main[precision and cost, other parts].mean:.2f}.",
    needs=own,
)
def findings():
    """Of the parts that pass the gate; one value an image."""
    for name in study.labels:
        of, parts = own[own.model == name], passed(name)
        for part in asked:
            told = right[(right.model == name) & (right.question == part)]
            yield Finding(name, f"right: {part}", told.before)
        if not parts:
            continue
        for kind in KINDS:
            claim = "heads-are-used" if name == study.labels[0] else ""
            values = beyond(of[of.by == kind], parts) if len(asked) > 1 else []
            yield Finding(name, f"own question beyond the others, by {kind}", values, claim)
        picked, rest = other_heads(name, parts)
        yield Finding(name, "the chosen head", picked)
        yield Finding(name, "mean of the other heads", rest)
        same, cross = agreements(name, parts)
        yield Finding(name, "precision and cost, own part", same)
        yield Finding(name, "precision and cost, other parts", cross)


def wide(frame, name, column, value):
    """Images by heads of one part or question, for those images that have both."""
    one = frame[frame[column] == name]
    return one.pivot_table(index="image", columns=["layer", "head"], values=value)


def agreements(name, parts):
    """Mean rank correlation over parts, of their own question and of the others'."""
    score = maps[maps.model == name]
    cost = heads[(heads.model == name) & (heads.by == "mean")]
    found = {True: [], False: []}
    for part in parts:
        precision = wide(score, "mask", part, "average_precision")
        for question in parts:
            lost = wide(cost, "question", question, "margin").loc[precision.index]
            arrays = precision.to_numpy(), lost.to_numpy()
            found[part == question].append(rank_agreement(*arrays, resamples=1).mean)
    return tuple(pd.Series(found[key], dtype=float).mean() for key in (True, False))


# %% [markdown]
# Intervals are over images: they speak of this network, not of its design. Losses are in shares of the
# images; a head that is chosen for two parts counts for both.
#
# ## Every head, every kind of ablation
#
# [Figure 1](#fig-ablation) shows all heads. If heads stand for parts *and are used*, a column has few red
# cells, and the frames, which only look at maps, lie on them.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Points of each question that are lost when a head is taken out, by each kind of ablation; red "
    "is a loss. Framed: the head whose map finds the part best.",
    alt="For each kind of ablation a grid of heads by questions, with numbers.",
    needs=heads,
)
def ablation(network: str | None = None):
    """The first network's."""
    name = network or study.labels[0]
    shown = questions or ["class"]
    of = heads[(heads.model == name) & heads.question.isin(shown)]
    grid = of.pivot_table(index=["layer", "head"], columns="question", values="right",
                          aggfunc="mean", sort=False)  # fmt: skip
    _, axes = plt.subplots(
        1, len(KINDS), figsize=(2.6 * len(KINDS) + 1, 0.28 * len(grid) + 1.4), sharey=True,
        layout="constrained",
    )  # fmt: skip
    for ax, kind in zip(axes, KINDS, strict=True):
        part = of[of.by == kind]
        grid = part.pivot_table(index=["layer", "head"], columns="question", values="right")
        grid = grid.sort_index()[shown]
        framed = grid * 0 > 1
        for mask in asked:
            best = chosen[(chosen.model == name) & (chosen["mask"] == mask)]
            framed.loc[best[["layer", "head"]].value_counts().index[0], mask] = True
        head_grid(grid, framed, limit=0.5, ax=ax)
        ax.set_title(kind, pad=34, fontsize="medium")
    return of.groupby(["by", "layer", "head", "question"])[["right", "margin"]].mean().reset_index()


# %% [markdown]
# ## Seeing and doing
#
# [Figure 2](#fig-agreement) sets the two against each other: how well a head's map finds the part, and what
# its loss costs the part's question, in nats of its log odds, where the loss of sure answers shows too.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Each point is a head of the first network: average precision of its map for a part, within the "
    "animal, and the loss of log odds in the part's question when the head is replaced by its mean. "
    "$\\rho$ is the rank correlation over heads with its 95 % interval over images.",
    alt="One scatter plot for each part.",
    needs=own,
)
def agreement():
    """A panel a part."""
    name = study.labels[0]
    score = maps[maps.model == name]
    cost = heads[(heads.model == name) & (heads.by == "mean")]
    _, axes = plt.subplots(1, len(asked), figsize=(2.9 * len(asked), 3), squeeze=False,
                           layout="constrained")  # fmt: skip
    rows = []
    for ax, part in zip(axes[0], asked, strict=True):
        precision = wide(score, "mask", part, "average_precision")
        lost = wide(cost, "question", part, "margin").loc[precision.index]
        told = rank_agreement(precision.to_numpy(), lost.to_numpy(), seed=seed)
        points = pd.DataFrame({"average_precision": precision.mean(), "lost": lost.mean()})
        points = points.reset_index()
        ax.scatter(points.average_precision, points.lost, c=points.layer, cmap="viridis", s=22)
        for row in points.nlargest(2, "lost").itertuples():
            label = f"{row.layer + 1}.{row.head + 1}"
            ax.annotate(label, (row.average_precision, row.lost), fontsize=8)
        reference_line(0, "", ax)
        ax.set_title(f"{part}: ρ = {told.mean:.2f} [{told.low:.2f}, {told.high:.2f}]",
                     fontsize="medium")  # fmt: skip
        ax.set_xlabel("average precision")
        rows.append(points.assign(part=part, rank_correlation=told.mean))
    axes[0][0].set_ylabel("loss of log odds (nats)")
    return pd.concat(rows, ignore_index=True)


# %% [markdown]
# ## What has to be carried over for the answer to change
#
# Ablation breaks; an interchange does not. Each image is drawn again with the other kind of one part, all
# else alike: its twin. What one run holds at some tokens after a layer is put into the other
# ([Figure 3](#fig-tokens)): the patches in which the twins differ; as many other patches of the animal, the
# control; `[CLS]`. 1 is as much as the part itself does. Where the curve of the patches falls and that of
# `[CLS]` rises, the part has been read.

# %%
def put_into_the_twin(network):
    """What of each part's difference is carried by tokens and by heads."""
    tell = partial(carried, network.model, network.images, seed=seed)
    reading = Reading(limit=n_twins, workers=study.workers)
    return pd.concat([tell(part, reading=reading) for part in passed(network.label)])


has_twins = asked and hasattr(study.networks[0].images, "twin")
told = [network for network in study.networks if has_twins and passed(network.label)]
twins = study.each(lambda network: put_into_the_twin(network) if network in told else None)
if len(twins):
    whole = twins[twins.question == twins.part].groupby(["model", "part"]).whole.mean()
    twins["carried"] = twins.moved / pd.MultiIndex.from_frame(twins[["model", "part"]]).map(whole)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Share of the difference between twins that is carried by the tokens put into the other run, after "
    "each layer, in the first network. Mean and one standard deviation over images.",
    alt="One line plot for each part, with a line for each choice of tokens.",
    needs=twins,
)
def tokens():
    """A panel a part."""
    name = study.labels[0]
    of = twins[(twins.model == name) & (twins["head"] < 0) & (twins.question == twins.part)]
    shown = ["its patches", "other patches", "[CLS]"]
    of = of[of.what.isin(shown)]
    parts = list(of.part.unique())
    _, axes = plt.subplots(1, len(parts), figsize=(3.1 * len(parts), 3.4), sharey=True,
                           squeeze=False, layout="constrained")  # fmt: skip
    for ax, part in zip(axes[0], parts, strict=True):
        rows = of[of.part == part].assign(value=lambda frame: frame.carried)
        layer_curves(rows, study.colours, "what", shown, ylabel="share carried", ax=ax)
        ax.set_title(part, pad=8, fontsize="medium")
        if ax is not axes[0][0]:
            ax.get_legend().remove()
            ax.set_ylabel("")
    return of


# %% [markdown]
# [Figure 4](#fig-carriers) puts one head's outputs at a time into the other run. A head that stands for a
# part carries that part's difference and no other's.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Hundredths of the difference between twins that one head's outputs carry, for twins that differ "
    "in each part. Framed: the head whose map finds the part best.",
    alt="A grid of heads by parts, with numbers.",
    needs=twins,
)
def carriers():
    """The first network's heads."""
    name = study.labels[0]
    of = twins[(twins.model == name) & (twins["head"] >= 0) & (twins.question == twins.part)]
    grid = of.pivot_table(index=["layer", "head"], columns="part", values="carried", sort=False)
    grid = grid.sort_index()
    framed = grid * 0 > 1
    for mask in grid.columns:
        best = chosen[(chosen.model == name) & (chosen["mask"] == mask)]
        framed.loc[best[["layer", "head"]].value_counts().index[0], mask] = True
    _, ax = plt.subplots(figsize=(1.1 * len(grid.columns) + 1.5, 0.28 * len(grid) + 1.2))
    head_grid(grid, framed, limit=0.6, ax=ax)
    return of


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "The chosen heads carry {main[carried by the chosen head].mean:.0%} of their own part's "
    "difference and {main[carried of other parts].mean:.0%} of the other parts'.",
    "After the first layer the part's patches carry "
    "{main[carried by its patches, first layer].mean:.0%}, as many others "
    "{main[carried by other patches, first layer].mean:.0%}; before the last, `[CLS]` alone carries "
    "{main[carried by CLS, last but one layer].mean:.0%}, and the answer is the twin's in "
    "{main[follows CLS, last but one layer].mean:.0%} of the images.",
    needs=twins,
)
def carriage():
    """Shares of the whole difference, one value an image."""
    for network in told:
        name, last = network.label, len(network.model.layers) - 2
        of = twins[(twins.model == name) & (twins.question == twins.part)]
        best = chosen[chosen.model == name].drop(columns="average_precision")
        one = of.merge(best, on=["model", "image", "layer", "head"])
        same = one.part == one["mask"]
        yield Finding(name, "carried by the chosen head", one[same].groupby("image").carried.mean())
        other = one[~same & one["mask"].isin(passed(name))]
        yield Finding(name, "carried of other parts", other.groupby("image").carried.mean())
        for quantity, layer, what, value in (
            ("carried by its patches, first layer", 0, "its patches", "carried"),
            ("carried by other patches, first layer", 0, "other patches", "carried"),
            ("carried by CLS, last but one layer", last, "[CLS]", "carried"),
            ("follows CLS, last but one layer", last, "[CLS]", "follows"),
        ):
            rows = of[(of.layer == layer) & (of.what == what)]
            yield Finding(name, quantity, rows.groupby("image")[value].mean())


# %% [markdown]
# ## What a head costs each class
#
# [Figure 5](#fig-classes) asks the same of the classes, without any parts: the loss of accuracy when a head
# is replaced by its mean.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Points of accuracy that each class loses when a head is replaced by its mean; red is a loss.",
    alt="A grid of heads by classes.",
    needs=heads,
)
def classes():
    """The first network's heads, the classes that are among the images."""
    network = study.networks[0]
    of = heads[(heads.model == network.label) & (heads.by == "mean") & (heads.question == "class")]
    words = network.images.classes
    grid = of.assign(name=of.label.map(lambda label: words[label])).pivot_table(
        index=["layer", "head"], columns="name", values="right"
    )
    _, ax = plt.subplots(figsize=(10, 0.24 * len(grid) + 2.6))
    head_grid(grid.sort_index(), limit=0.8, ax=ax)
    return of.groupby(["layer", "head", "label"])[["right", "margin"]].mean().reset_index()


# %% [markdown]
# ## The halves of a layer
#
# The same edits put the derivation to the test ([Does each layer compress and
# sparsify?](02-compression.ipynb), [The steps](03-steps.ipynb)). One half of one layer is left out, halved
# or doubled; and the compression step is replaced by a step of the same length down the exact gradient of
# $R^c$, or by itself turned in a random direction. If attention matters *because it compresses*, the exact
# gradient does its work and the turned step does not.

# %%
STEPS = {
    "no compression": partial(skip, half_step="compression"),
    "compression × 0.5": partial(scale, half_step="compression", factor=0.5),
    "compression × 2": partial(scale, half_step="compression", factor=2),
    "exact gradient": partial(replace_step, by="derived"),
    "turned step": partial(replace_step, by="turned"),
    "no sparsification": partial(skip, half_step="sparsification"),
    "sparsification × 0.5": partial(scale, half_step="sparsification", factor=0.5),
    "sparsification × 2": partial(scale, half_step="sparsification", factor=2),
}


def step_costs(network):
    """What each change of half a layer costs the answer."""
    layers = range(len(network.model.layers))
    edits = {f"{name}@{layer}": [make(layer)] for name, make in STEPS.items() for layer in layers}
    return costs(outcomes(network.model, network.images, edits, study.reading))


def step_rates(network):
    """The rate after the edited layer's attention, and the zeros that the last layer ends in."""
    model, last = network.model, len(network.model.layers) - 1
    measures = {name: MEASURES[name] for name in ("coding_rate_after_attention", "nonzero_fraction")}
    read = partial(measure_layers, model, network.images, measures, reading=Reading(limit=n_rates))
    edited = [
        read([layer, last], edits=[make(layer)]).assign(edit=name, at=layer)
        for name, make in STEPS.items()
        for layer in range(last + 1)
    ]
    plain = [read().assign(edit="as it is", at=layer) for layer in range(last + 1)]
    return pd.concat([*edited, *plain], ignore_index=True)


answers = study.each(step_costs, needs="labels")
rates = study.each(step_rates)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def step_frame():
    """Loss of accuracy, rate and non-zero share, by edit and edited layer."""
    lost = answers[answers.question == "class"]
    lost = lost.assign(**lost.edit.str.extract(r"(?P<name>.*)@(?P<at>\d+)").astype({"at": int}))
    keys = ["model", "name", "at"]
    loss = lost.groupby(keys)[["right", "margin"]].mean()
    named = rates.rename(columns={"edit": "name"})
    here = named[(named.measure == "coding_rate_after_attention") & (named.layer == named["at"])]
    end = named[(named.measure == "nonzero_fraction") & (named.layer == named.layer.max())]
    return loss.join(here.groupby(keys).value.mean().rename("rate"), how="outer").join(
        end.groupby(keys).value.mean().rename("nonzero"), how="outer"
    ).reset_index()


@study.figure(
    "Half of one layer changed, in the first network: accuracy lost, coding rate $R^c$ after that "
    "layer's attention, and non-zero share after the last layer. In grey, the network as it is.",
    alt="Three line plots against the changed layer, with a line for each change.",
    needs=answers,
)
def halves():
    """Compression above, sparsification below."""
    frame = step_frame()
    frame = frame[frame.model == study.labels[0]]
    kinds = [list(STEPS)[:5], list(STEPS)[5:]]
    columns = {"right": "accuracy lost", "rate": "$R^c$ after attention (nats)",
               "nonzero": "non-zero share at the end"}  # fmt: skip
    _, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for line, shown in zip(axes, kinds, strict=True):
        for ax, (column, label) in zip(line, columns.items(), strict=True):
            for name in shown:
                rows = frame[frame.name == name]
                ax.plot(rows["at"] + 1, rows[column], marker="o", markersize=4, label=name)
            plain = frame[frame.name == "as it is"]
            if column != "right":
                ax.plot(plain["at"] + 1, plain[column], color="0.6", linestyle="--", zorder=0)
            ax.set_ylabel(label)
        line[0].legend(fontsize="x-small", frameon=False)
    for ax in axes[1]:
        ax.set_xlabel("layer that is changed")
    return frame


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Leaving out one layer's compression costs {main[no compression].mean:.0%} of accuracy on "
    "average, one layer's sparsification {main[no sparsification].mean:.0%}.",
    "In place of the learned compression, the exact gradient step of the same length costs "
    "{main[exact gradient].mean:.0%}, the learned step turned at random "
    "{main[turned step].mean:.0%}: that the step follows the gradient "
    "{main[turned step less exact gradient]:is worth something|does harm|is of no clear worth}.",
    needs=answers,
)
def steps_found():
    """Accuracy lost, mean over the layer that is changed; one value an image."""
    lost = answers[answers.question == "class"]
    lost = lost.assign(edit=lost.edit.str.split("@").str[0])
    for name in study.labels:
        of = lost[lost.model == name].groupby(["edit", "image"]).right.mean()
        for edit in STEPS:
            yield Finding(name, edit, of[edit])
        difference = of["turned step"] - of["exact gradient"]
        yield Finding(name, "turned step less exact gradient", difference)


# %% [markdown]
# ## How our setting differs
#
# The paper shows maps of networks trained on ImageNet-21k and chooses heads by eye. Ours is a small network
# asked about drawn animals, and chooses by a rule. In CRATE a head's projections are query, key and value at
# once, so that nothing of it is left when its outputs are replaced; in a ViT its keys would still be there,
# unused.
#
# ## What would have disproved the claim
#
# - Heads that find a part best and whose loss costs its question no more than the others.
# - A loss under zero or noise alone: then any damage would do.
# - Heads that carry nothing of what twins differ in, or that of every part alike.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
