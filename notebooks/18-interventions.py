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
# **The claim.** [Yu et al. 2024](../book/bibliography.md#yu2024emergence) (Fig. 7) call heads of
# CRATE *semantic*: one looks at legs, one at ears. Where a head looks is seen from outside;
# whether the answer rests on it, nobody has shown. A head may find the ears and hand on nothing
# that is used.
#
# **The test.** A network was asked which ears, legs, tail and muzzle an animal has, each of two
# kinds, so that its label answers four questions. The answer to each is read off its class
# probabilities. For every part, the head that finds it best is chosen *by its map alone*, by
# average precision within the animal, on half of the images; on the other half it is taken out,
# and the loss is counted in points of each question. Declared before the run:
#
# - *The one number*: the loss in the part's own question less the mean loss in the others.
# - *It counts* where its whole interval is above 0 under all four kinds of ablation: what the
#   head hands on is replaced by zero, by its mean over other images, by another image's, and by
#   noise of the same size. Zero and noise break things that a mean leaves whole; only together
#   they speak of the head.
# - *The gate*: a question that the network answers right in fewer images than `gate` is shown and
#   draws no conclusion.
#
# Then the test is turned round: of two images that differ in one part only, what has to be put
# from one run into the other for the answer to change? And last, the halves of a layer are put to
# the same test.

# %% tags=["parameters"]
models: list[str] = ["crate-parts", "vit-parts"]
dataset: str = "creatures-parts"
n_images: int = 48
n_twins: int = 16  # images that are drawn again with another part
n_rates: int = 8  # images whose coding rate is measured under each edit
gate: float = 0.8  # least share of right answers of a question that draws a conclusion
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.interventions import (
    carried,
    chosen_costs,
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
from crate_analysis.plotting import head_grid, layer_curves
from crate_analysis.segmentation import Scoring, head_scores
from crate_analysis.study import Finding, Study
from crate_analysis.walk import Reading

study = Study(globals(), "18-interventions")
main = study.networks[0].label

# %% [markdown]
# ## The measurement
#
# An edit changes one thing on the way through the network and lets it run on from there
# (`crate_analysis.interventions`). What is replaced is what a head *hands on*, before the output
# map: the one place where a head can be taken out alike in CRATE and in a ViT. The means and the
# other images' values come from the training split. Maps are scored within the animal, so that to
# find the animal is no merit in finding its ears.

# %%
KINDS = ["zero", "mean", "resample", "noise"]


def take_out_heads(network):
    """What each head's ablation costs each question."""
    others = record(network.model, network.train_images, reading=study.reading)
    return head_costs(network.model, network.images, others, KINDS, study.reading, seed)


heads = study.each(take_out_heads, needs=["labels", "train"])
precision = Scoring(within=("object",), values=("average_precision",))
maps = study.each(
    lambda network: head_scores(network.model, network.images, precision, reading=study.reading),
    needs="parts",
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
told = heads.drop_duplicates(["model", "image", "question"]) if len(heads) else heads
settled = questions_of(study.networks[0].images).names
asked = [name for name in settled if len(maps) and len(heads) and (maps["mask"] == name).any()]
right = {
    name: told[told.model == name].groupby("question").before.mean() if len(told) else {}
    for name in study.labels
}
passed = {name: [part for part in asked if right[name][part] >= gate] for name in study.labels}
keys = ["model", "mask", "image", "layer", "head"]
chosen = pd.DataFrame(columns=keys)
if asked:
    of = maps[maps["mask"].isin(asked)]
    chosen = cross_fit(of, ["layer", "head"], "average_precision", ["model", "mask"])[keys]
gated = pd.concat(
    chosen[(chosen.model == name) & chosen["mask"].isin(passed[name])] for name in study.labels
)
own = pd.DataFrame(columns=[*keys, "by", "own", "other_questions", "other_heads"])
if len(gated):
    own = pd.concat(
        chosen_costs(heads[heads.model == name], one) for name, one in gated.groupby("model")
    )


def seeing_and_doing(part, question):
    """The first network's scores for a part, and what its heads' means cost a question."""
    lost = heads[(heads.model == main) & (heads.by == "mean") & (heads.question == question)]
    return maps[(maps.model == main) & (maps["mask"] == part)], lost


def framed(grid):
    """The cells of the heads that find the first network's parts best."""
    cells = grid * 0 > 1
    for part in set(asked) & set(grid.columns):
        best = chosen[(chosen.model == main) & (chosen["mask"] == part)]
        cells.loc[best[["layer", "head"]].value_counts().index[0], part] = True
    return cells


# %% [markdown]
# Ablation breaks; an interchange ([Geiger et al. 2021](../book/bibliography.md#geiger2021causal))
# does not. Each image is drawn again with the other kind of one part, all else alike: its *twin*.
# What one run holds at some tokens, or in one head, is put into the other, and the answer is
# asked for again: 0 is no effect, 1 as much as the part itself has.


# %%
def put_into_the_twin(network):
    """What of each part's difference is carried by tokens and by heads."""
    if not passed[network.label] or not hasattr(network.images, "twin"):
        return None
    few = Reading(limit=n_twins, workers=workers)
    return carried(network.model, network.images, passed[network.label], reading=few, seed=seed)


twins = study.each(put_into_the_twin)

# %% [markdown]
# The same edits put the derivation of a layer to the test. One half of one layer is left out,
# halved or doubled; and the compression step is replaced by one of the same length down the exact
# gradient of $R^c$, or by itself turned in a random direction.

# %%
STEPS = {
    "no compression": partial(skip, half_step="compression"),
    "compression × 0.5": partial(scale, half_step="compression", factor=0.5),
    "compression × 2": partial(scale, half_step="compression", factor=2),
    "exact gradient": partial(replace_step, by="derived"),
    "turned step": partial(replace_step, by="turned", seed=seed),
    "no sparsification": partial(skip, half_step="sparsification"),
    "sparsification × 0.5": partial(scale, half_step="sparsification", factor=0.5),
    "sparsification × 2": partial(scale, half_step="sparsification", factor=2),
}


# %%
def change_halves(network):
    """What each change of half a layer costs the answer."""
    depth = range(len(network.model.layers))
    edits = {(name, layer): [make(layer)] for name, make in STEPS.items() for layer in depth}
    lost = costs(outcomes(network.model, network.images, edits, study.reading))
    lost[["edit", "changed"]] = lost.edit.tolist()
    return lost


halves = study.each(change_halves, needs="labels")


# %%
def rates_under(network):
    """The coding rate and the non-zero share of every layer under each change."""
    wanted = {name: MEASURES[name] for name in ("coding_rate_after_attention", "nonzero_fraction")}
    wanted["size"] = lambda state: state.output.square().mean((-2, -1))
    few = Reading(limit=n_rates, workers=workers)
    read = partial(measure_layers, network.model, network.images, wanted, reading=few)
    frames = [read().assign(edit="as it is", changed=-1)]
    for name, make in STEPS.items():
        for layer in range(len(network.model.layers)):
            frames.append(read(edits=[make(layer)]).assign(edit=name, changed=layer))
    return pd.concat(frames, ignore_index=True)


rates = study.each(rates_under)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
none_carried = ["model", "part", "question", "image", "layer", "head", "what", "carried"]
carriage = twins if len(twins) else pd.DataFrame(columns=none_carried)


def of_heads(name):
    """What the heads that are chosen by their maps cost, where a part passes the gate."""
    for part in asked:
        yield Finding(name, f"right: {part}", right[name][part])
    of = own[own.model == name]
    for kind in KINDS:
        rows = of[of.by == kind]
        beyond = (rows.own - rows.other_questions).groupby(rows.image).mean()
        claim = "heads-are-used" if name == main else ""
        yield Finding(name, f"own question beyond the others, by {kind}", beyond.dropna(), claim)
    for quantity, column in (
        ("lost by the chosen head", "own"),
        ("lost by the other heads", "other_heads"),
    ):
        yield Finding(name, quantity, of[of.by == "mean"].groupby("image")[column].mean())


def of_twins(name, depth):
    """What carries the difference between twins."""
    of = carriage[(carriage.model == name) & (carriage.question == carriage.part)]
    one = of.merge(gated, on=["model", "image", "layer", "head"])
    same = one.part == one["mask"]
    rows = {"carried by the chosen head": one[same], "carried by it of other parts": one[~same]}
    for quantity, layer, what in (
        ("carried by its patches, first layer", 0, "its patches"),
        ("carried by other patches, first layer", 0, "other patches"),
        ("carried by CLS, last but one layer", depth - 2, "[CLS]"),
    ):
        rows[quantity] = of[(of.layer == layer) & (of.what == what)]
    for quantity, frame in rows.items():
        yield Finding(name, quantity, frame.groupby("image").carried.mean())


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "In {main} the answer {main[own question beyond the others, by mean]:rests on|does not rest on|"
    "cannot be said to rest on} the head that finds the part: replaced by its mean, it costs the "
    "part's question {main[own question beyond the others, by mean]:.0%} of the images more than "
    "the other questions.",
    "By zero it is {main[own question beyond the others, by zero]:.0%}, by another image's "
    "{main[own question beyond the others, by resample]:.0%}, by noise of the same size "
    "{main[own question beyond the others, by noise]:.0%}.",
    "The other heads cost that question {main[lost by the other heads].mean:.1%} on average, the "
    "chosen one {main[lost by the chosen head].mean:.1%}.",
    "Put into the run of a twin that differs in the part, the chosen head carries "
    "{main[carried by the chosen head].mean:.0%} of the difference, and "
    "{main[carried by it of other parts].mean:.0%} where the twins differ in another part.",
    "In {other} the chosen head's mean costs its question "
    "{other[own question beyond the others, by mean].mean:.0%} more than the others, another "
    "image's {other[own question beyond the others, by resample].mean:.0%}; it carries "
    "{other[carried by the chosen head].mean:.0%} of the difference between twins.",
    "After the first layer the part's patches carry "
    "{main[carried by its patches, first layer].mean:.0%} of it, as many others "
    "{main[carried by other patches, first layer].mean:.0%}; before the last layer `[CLS]` alone "
    "carries {main[carried by CLS, last but one layer].mean:.0%}.",
    "Leaving out the compression of one layer costs {main[lost by no compression].mean:.0%} of "
    "accuracy on average, leaving out its sparsification "
    "{main[lost by no sparsification].mean:.0%}; a step down the exact gradient in place of the "
    "learned one costs {main[lost by exact gradient].mean:.0%}, the learned step turned at random "
    "{main[lost by turned step].mean:.0%}: the gradient's direction "
    "{main[gained by the gradient's direction]:is worth something|does harm|is of no clear worth}.",
    needs=halves,
)
def findings():
    """One value an image, of the parts that pass the gate."""
    for network in study.networks:
        yield from of_heads(network.label)
        yield from of_twins(network.label, len(network.model.layers))
        lost = halves[(halves.model == network.label) & (halves.question == "class")]
        for edit in STEPS:
            values = lost[lost.edit == edit].groupby("image").right.mean()
            yield Finding(network.label, f"lost by {edit}", values)
        by = lost.groupby(["edit", "image"]).right.mean()
        gained = by["turned step"] - by["exact gradient"]
        yield Finding(network.label, "gained by the gradient's direction", gained)


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs; over trainings see
# [Labels](17-labels.ipynb). Losses are shares of
# the images whose answer was right and is no longer, less those the other way round. *Right* is
# the share of right answers without any edit, by which the gate decides.
#
# ## Every head, by every kind of ablation
#
# If heads stand for parts *and are used*, a column of [Figure 1](#fig-ablation) has few red
# cells, a row has one, and the frames, which know only the maps, lie on them.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Points of each question that are lost when a head is taken out, by each kind of ablation, in "
    "the first network; red is a loss. Framed: the head whose map finds the part best.",
    alt="For each kind of ablation a grid of heads by questions, with numbers.",
    needs=heads,
)
def ablation():
    """A panel for each kind."""
    shown = [*asked, "class"]
    of = heads[(heads.model == main) & heads.question.isin(shown)]
    _, axes = plt.subplots(
        1, len(KINDS), figsize=(11, 1.6 + 0.075 * len(of) / of.image.nunique() / len(shown)),
        sharey=True, layout="constrained",
    )  # fmt: skip
    for ax, (kind, rows) in zip(axes, of.groupby("by", sort=False), strict=True):
        grid = rows.pivot_table(index=["layer", "head"], columns="question", values="right")[shown]
        head_grid(grid, framed(grid), limit=0.5, ax=ax)
        ax.set_title(kind, pad=8, fontsize="medium")
    return of.groupby(["by", "layer", "head", "question"])[["right", "margin"]].mean().reset_index()


# %% [markdown]
# ## Seeing and doing
#
# [Figure 2](#fig-agreement) sets the two against each other over all heads: how well a map finds
# the part, and what the head's loss costs the part's question, in nats of its log odds, where a
# loss of sure answers shows too. [Table 1](#tab-crossed) crosses parts and questions: if seeing
# is doing, the diagonal stands out.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Each point is a head of the first network, coloured by its layer (dark is early), the two of "
    "the largest loss with layer and number: average precision of its map for a part, within the "
    "animal, and the loss of log odds in the part's question when it is replaced by its mean.",
    alt="One scatter plot for each part.",
    needs=chosen,
)
def agreement():
    """A panel for each part."""
    _, axes = plt.subplots(1, len(asked), figsize=(2.9 * len(asked), 3), squeeze=False,
                           layout="constrained")  # fmt: skip
    frames = []
    for ax, part in zip(axes[0], asked, strict=True):
        seen, lost = seeing_and_doing(part, part)
        points = pd.DataFrame(
            {
                "precision": seen.groupby(["layer", "head"]).average_precision.mean(),
                "lost": lost.groupby(["layer", "head"]).margin.mean(),
            }
        ).reset_index()
        ax.scatter(points.precision, points.lost, c=points.layer, cmap="viridis", s=22)
        for row in points.nlargest(2, "lost").itertuples():
            ax.annotate(f"{row.layer + 1}.{row.head + 1}", (row.precision, row.lost), fontsize=8)
        ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
        ax.margins(0.12)
        ax.set(title=part, xlabel="average precision")
        frames.append(points.assign(part=part))
    axes[0][0].set_ylabel("loss of log odds (nats)")
    return pd.concat(frames, ignore_index=True)


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Rank correlation over the first network's heads between the average precision for a part "
    "(rows) and the loss in a question (columns), with its 95 % interval over images.",
    needs=chosen,
)
def crossed():
    """Parts by questions."""
    rows = [
        {"seen": part}
        | {
            f"asked: {question}": str(rank_agreement(*seeing_and_doing(part, question), seed=seed))
            for question in asked
        }
        for part in asked
    ]
    return pd.DataFrame(rows)


# %% [markdown]
# ## What has to be carried over for the answer to change
#
# In [Figure 3](#fig-tokens) the tokens after a layer are put into the run of the twin: the
# patches in which the two images differ; as many other patches of the animal, the control;
# `[CLS]`. Where the curve of the patches falls and that of `[CLS]` rises, the part is read.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Share of the difference between twins that is carried by tokens put into the other run after "
    "each layer, in the first network. Mean and one standard deviation over images.",
    alt="One line plot for each part, with a line for each choice of tokens.",
    needs=twins,
)
def tokens():
    """A panel for each part."""
    shown = ["its patches", "other patches", "[CLS]"]
    of = twins[(twins.model == main) & (twins.question == twins.part) & twins.what.isin(shown)]
    parts = list(of.part.unique())
    figure, axes = plt.subplots(1, len(parts), figsize=(2 + 2.5 * len(parts), 3.6), sharey=True,
                           squeeze=False, layout="constrained")  # fmt: skip
    for ax, part in zip(axes[0], parts, strict=True):
        rows = of[of.part == part].assign(value=lambda frame: frame.carried)
        colours = {main: study.colours[main]}
        layer_curves(rows, colours, "what", shown, ylabel="share carried", ax=ax)
        ax.set_xlabel(f"layer\n{part}")
        legend = ax.get_legend()
        legend.remove()
    words = [text.get_text() for text in legend.texts]
    figure.legend(legend.legend_handles, words, loc="outside upper center", ncols=4, frameon=False)
    return of


# %% [markdown]
# [Figure 4](#fig-carriers) puts the outputs of one head at a time into the run of the twin. A
# head that stands for a part carries that part's difference and no other's.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Hundredths of the difference between twins that one head's outputs carry, for twins that "
    "differ in each part, in the first network. Framed: the head whose map finds the part best.",
    alt="A grid of heads by parts, with numbers.",
    needs=twins,
)
def carriers():
    """Heads by parts."""
    of = twins[(twins.model == main) & (twins.question == twins.part) & (twins.what == "head")]
    grid = of.pivot_table(index=["layer", "head"], columns="part", values="carried")
    grid = grid[[part for part in asked if part in grid]]
    _, ax = plt.subplots(figsize=(2 + len(grid.columns), 1.2 + 0.28 * len(grid)))
    head_grid(grid, framed(grid), limit=0.6, ax=ax)
    return of


# %% [markdown]
# ## What a head costs each class
#
# [Figure 5](#fig-classes) asks without any parts: the accuracy that each class loses when a head
# is replaced by its mean.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Points of accuracy that each class loses when a head of the first network is replaced by its "
    "mean; red is a loss. Classes with long names are numbered, from 0.",
    alt="A grid of heads by classes.",
    needs=heads,
)
def classes():
    """Heads by the classes that are among the images."""
    of = heads[(heads.model == main) & (heads.by == "mean") & (heads.question == "class")]
    names = study.networks[0].images.classes
    long = max(map(len, names)) > 16
    named = of.assign(name=of.label.map(lambda n: f"class {n:02}" if long else names[n]))
    grid = named.pivot_table(index=["layer", "head"], columns="name", values="right")
    _, ax = plt.subplots(figsize=(10, 2.6 + 0.2 * len(grid)))
    head_grid(grid, limit=0.8, ax=ax)
    return named.groupby(["layer", "head", "name"])[["right", "margin"]].mean().reset_index()


# %% [markdown]
# ## The halves of a layer
#
# If attention matters *because it compresses*, the exact gradient of $R^c$ does its work and the
# turned step does not; and where ISTA is left out, the zeros go and the answer with them
# ([Figure 6](#fig-steps)). What the steps are is in [Is attention the step that it was derived
# from?](03-steps.ipynb).


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Half of one layer changed, in the first network: accuracy lost, coding rate $R^c$ after the "
    "next attention (that of the layer itself, where its compression is changed), and non-zero "
    "share after the last layer (but for a last layer without its ISTA). Dashed: the network as it "
    "is.",
    alt="Two rows of line plots against the changed layer, with a line for each change.",
    needs=halves,
)
def steps():
    """Changes of the compression above, of the sparsification below."""
    lost = halves[(halves.model == main) & (halves.question == "class")]
    lost = lost.groupby(["edit", "changed"]).right.mean()
    of = rates[rates.model == main]
    plain = of[of.edit == "as it is"]
    rate = of[of.measure == "coding_rate_after_attention"]
    rate = rate[rate.layer == rate.changed + rate.edit.str.contains("sparsification")]
    zeros = of[(of.measure == "nonzero_fraction") & (of.layer == of.layer.max())]
    zeros = zeros[~(zeros.edit.str.contains("sparsification") & (zeros.changed == zeros.layer))]
    before = plain[plain.measure == "coding_rate_after_attention"].groupby("layer").value.mean()
    ends = plain[(plain.measure == "nonzero_fraction") & (plain.layer == plain.layer.max())]
    frame = pd.DataFrame(
        {
            "accuracy lost": lost,
            "$R^c$ after the next attention (nats)": rate.groupby(["edit", "changed"]).value.mean(),
            "non-zero share at the end": zeros.groupby(["edit", "changed"]).value.mean(),
        }
    ).drop("as it is", errors="ignore")
    levels = (np.zeros(len(before)), before, np.full(len(before), ends.value.mean()))
    _, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for half, shown in enumerate((list(STEPS)[:5], list(STEPS)[5:])):
        for ax, column, level in zip(axes[half], frame, levels, strict=True):
            later = half if column.startswith("$") else 0
            ax.plot(before.index + 1 - later, level, color="0.6", linestyle="--", zorder=0)
            for name in shown:
                values = frame.loc[name, column]
                ax.plot(values.index + 1, values, marker="o", markersize=4, label=name)
            ax.set_ylabel(column)
        axes[half, 0].legend(fontsize="x-small", frameon=False)
    axes[0, 0].set_xlim(0.7, len(before) + 0.3)
    for ax in axes[1]:
        ax.set_xlabel("layer that is changed")
    return frame.reset_index()


# %% [markdown]
# ## How our setting differs
#
# The paper shows maps of networks trained on ImageNet-21k and chooses heads by eye. Ours is a
# small network that was asked about drawn animals, and chooses by a rule. In CRATE a head's
# projections are query, key and value at once; in a ViT only the keys are read as projections, so
# that only what a head hands on can be replaced alike in both.
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
