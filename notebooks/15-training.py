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
# # When do the maps appear?
#
# **The claim.** Segmentation emerges along training, in CRATE and not in a ViT
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 10); compression and sparsity grow along
# training too ([Yu et al. 2023](../book/bibliography.md#yu2023whitebox)).
#
# **The test.** The image-specific IoU of the best head at every snapshot: last less first, and last less
# best, over several trainings of each design, at the usual length and five times as long. Each snapshot is
# scored at one layer rule: the layer that is best on the other half of the images.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
runs: str = "when"  # the trainings: a shipped table of runs, a file, or nothing
dataset: str = "creatures"
n_images: int = 100
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
gate: float = 0.85  # least accuracy of a training that counts, declared before the runs
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import (
    MEASURES,
    contrast_interval,
    cross_fit,
    interval_frame,
    measure_layers,
    run_interval,
)
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.plotting import heat, interval_curves, model_colours, rgb_tile, sheet, step_axis
from crate_analysis.probes import cls_attention, collect, pca_rgb
from crate_analysis.segmentation import Scoring, best_heads, image_specific, scores_with_rivals
from crate_analysis.study import Finding, Study
from crate_analysis.training.measured import (
    Criterion,
    by_seed,
    criteria_frame,
    gate_criteria,
    measured,
)

study = Study(globals(), "15-training")
trainings = measured(runs)
IOU = "image-specific IoU"
CELLS = {"crate": "CRATE", "vit": "ViT", "crate-long": "CRATE, 5 x", "vit-long": "ViT, 5 x"}
WHITE_BOX = {name: MEASURES[name] for name in ("coding_rate", "nonzero_fraction")}

# %% [markdown]
# ## What was declared
#
# Before the first run, `params/experiments/when.yml` settled the runs, the number and what would count:
#
# - **The number.** The image-specific IoU of the best head, at the cross-fitted best layer of each
#   snapshot, against the training step.
# - **The gate.** More than 85 % of the validation images named rightly at the end.
# - **Success.** To say, with intervals over runs, whether the ViT's maps at the end are worse than at
#   their best and CRATE's are not, at the end of the usual training and of one five times as long.
#
# Which step is best is chosen on the other trainings of the same kind: chosen on the same one, chance
# would make any curve fall.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def wide_of(cell):
    """A row for each training that passes the gate, a column for each step."""
    rows = trainings[(trainings.cell == cell) & (trainings.quantity == IOU)]
    rows = rows[rows.seed.isin(by_seed(trainings, cell, "accuracy", gate).index)]
    return rows.pivot_table(index="seed", columns="step", values="mean")


curves_of = {cell: wide_of(cell) for cell in CELLS if cell in set(trainings.cell)}
curves_of = {cell: wide for cell, wide in curves_of.items() if len(wide)}


def gained(wide):
    """Of each training the last snapshot less the first."""
    return wide[wide.columns[-1]] - wide[wide.columns[0]]


def less_highest(wide):
    """Of each training the last snapshot less the one that is highest in the others."""
    steps = [wide.drop(index=seed).mean().idxmax() for seed in wide.index if len(wide) > 1]
    high = [wide.loc[seed, step] for seed, step in zip(wide.index, steps, strict=False)]
    return wide[wide.columns[-1]][: len(high)] - high


# %% [markdown]
# ## The measurement
#
# Training keeps the weights at initialisation and at steps that double up to the last. Each snapshot is
# measured as the finished network is: the best head and its rival, the network's own maps of other
# images; the coding rate and the share of non-zero entries, on validation and on training images.


# %%
def along(network, measure):
    """What `measure` finds for each snapshot, with a column for its step."""
    frames = [measure(model).assign(step=step) for step, model in network.snapshots()]
    return pd.concat(frames, ignore_index=True) if frames else None


def segment(model, images):
    """The image-specific IoU of the best head, by layer and image."""
    scores = scores_with_rivals(
        model, images, images, Scoring(values=("iou",)), None, ["other images"], draws=2,
        seed=seed, reading=study.reading,
    )  # fmt: skip
    return image_specific(best_heads(scores.query("not is_part")))


# %% jupyter={"source_hidden": true} tags=["hide-input"]
iou = study.each(
    lambda network: along(network, lambda model: segment(model, network.images)), needs="masks"
)
values = study.each(
    lambda network: along(
        network,
        lambda model: pd.concat(
            measure_layers(model, images, WHITE_BOX, reading=study.reading).assign(split=split)
            for split, images in (("val", network.images), ("train", network.train_images))
            if images is not None
        ),
    )
)
if len(iou):
    columns = ["model", "step", "layer", "image", "iou", "image_specific"]
    chosen = cross_fit(iou[columns], "layer", "image_specific")
else:
    chosen = iou

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Over trainings the image-specific IoU of CRATE changes by {by[CRATE][last less first]} from its first "
    "weights to its last, that of a ViT by {by[ViT][last less first]}.",
    "CRATE gains {by[CRATE][last less first, less a ViT's]} more than a ViT; after five times as much "
    "training {by[CRATE, 5 x][last less first, less a ViT's]} more.",
    "The end lies {by[CRATE][last less highest]} from the highest step in CRATE and "
    "{by[ViT][last less highest]} in a ViT; after five times as much training "
    "{by[CRATE, 5 x][last less highest]} and {by[ViT, 5 x][last less highest]}.",
    "In the networks in `models`, of another recipe, training changes the image-specific IoU of {main} "
    "by {main[last less first]} and that of {other} by {other[last less first]}.",
    "The last snapshot of {main} lies {main[last less highest]} from the snapshot that is highest on "
    "the other half of the images, that of {other} {other[last less highest]}; the highest of all is "
    "at step {main[step of the highest].mean:.0f} and {other[step of the highest].mean:.0f}.",
    "The non-zero share at the last layer of {main} changes by "
    "{main[non-zero share, last less first]} along training.",
    needs=trainings if len(trainings) else chosen,
)
def findings():
    """Over trainings; then one value an image of each network, the highest on the other half."""
    for cell, wide in curves_of.items():
        name = CELLS[cell]
        emerges = "above" if cell.startswith("crate") else "below"  # the claim says "in CRATE only"
        gain = run_interval(gained(wide))
        yield Finding(name, "trainings", float(len(wide)))
        yield Finding(name, "last less first", gain, "training", expected=emerges)
        high = less_highest(wide)
        yield Finding(name, "last less highest", run_interval(high) if len(high) else [])
        yield Finding(name, "step of the highest mean", float(wide.mean().idxmax()))
        rival = curves_of.get(cell.replace("crate", "vit"))
        if cell.startswith("crate") and rival is not None and len(wide) + len(rival) > 2:
            less = contrast_interval([gained(wide), gained(rival)], (1, -1))
            yield Finding(name, "last less first, less a ViT's", less, "training")
    for label in study.labels:
        own = chosen[chosen.model == label]
        if own.empty:
            for quantity in ("step of the highest", "non-zero share, last less first"):
                yield Finding(label, quantity, [])
            continue
        claim = "training" if label == study.labels[0] and not curves_of else ""
        wide = own.pivot_table(index="image", columns="step", values="image_specific")
        gain = wide[wide.columns[-1]] - wide[wide.columns[0]]
        yield Finding(label, "last less first", gain.dropna(), claim)
        high = cross_fit(own.drop(columns=["layer", "half"]), "step", "image_specific")
        high = high.set_index("image").image_specific
        yield Finding(label, "last less highest", (wide[wide.columns[-1]] - high).dropna())
        yield Finding(label, "step of the highest", float(wide.mean().idxmax()))
        share = values[
            (values.model == label)
            & (values.measure == "nonzero_fraction")
            & (values.split == "val")
            & (values.layer == values[values.model == label].layer.max())
        ].pivot_table(index="image", columns="step", values="value")
        change = share[share.columns[-1]] - share[share.columns[0]]
        yield Finding(label, "non-zero share, last less first", change)
    if len(study.labels) > 1 and set(study.labels) <= set(chosen.model):
        main, other = (
            chosen[chosen.model == label].pivot_table(
                index="image", columns="step", values="image_specific"
            )
            for label in (study.labels[0], study.labels[-1])
        )
        gains = [one[one.columns[-1]] - one[one.columns[0]] for one in (main, other)]
        name = "last less first, difference"
        claim = "" if curves_of else "training"
        yield Finding(study.labels[0], name, (gains[0] - gains[1]).dropna(), claim)


# %% [markdown]
# Of `CRATE`, `ViT` and their longer trainings the intervals are over trainings; of the networks in
# `models`, over images: those speak of one training each.
#
# ## Over trainings
#
# [Figure 1](#fig-over-trainings) follows each training of the declared experiment. Steps double from mark
# to mark.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Image-specific IoU of the best head against the training step: a thin line for each training that "
    "passes the gate, their mean, and its 95 % interval over trainings. A panel for the usual training, and "
    "one for five times as long.",
    alt="Line plots against the training step, each with curves of CRATE and ViT.",
    needs=trainings,
)
def over_trainings():
    """A panel for each length."""
    colours = model_colours(["CRATE", "ViT"])
    lengths = {
        title: {
            CELLS[design]: curves_of[design + ending]
            for design in ("crate", "vit")
            if design + ending in curves_of
        }
        for title, ending in (("usual", ""), ("five times as long", "-long"))
    }
    lengths = {title: shown for title, shown in lengths.items() if shown}
    _, axes = plt.subplots(
        1, len(lengths), figsize=(5 * len(lengths), 3.8), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    frames = []
    for ax, (title, shown) in zip(axes[0], lengths.items(), strict=True):
        rows = []
        for name, wide in shown.items():
            ax.plot(wide.columns, wide.T, color=colours[name], linewidth=0.7, alpha=0.5)
            rows += [(name, step, *run_interval(values)) for step, values in wide.items()]
        means = pd.DataFrame(rows, columns=["model", "step", "mean", "low", "high"])
        interval_curves(means, {name: colours[name] for name in shown}, "step", IOU, ax)
        step_axis(sorted(means.step.unique().tolist()), ax)
        ax.tick_params(axis="x", labelsize="small")
        ax.set_title(title, fontsize="medium")
        frames.append(means.assign(training=title))
    axes[0, 0].legend(frameon=False)
    return pd.concat(frames)


# %% [markdown]
# ## The declared criteria
#
# [Table 1](#tab-declared) answers the declaration in its own words.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("What was declared, and what the trainings show.", needs=trainings)
def declared():
    """In the words of the declaration."""
    rows = gate_criteria(trainings, CELLS, gate)
    for cell, wide in curves_of.items():
        if len(wide) > 1:
            found = run_interval(less_highest(wide))
            told = "worse" if found.high < 0 else "not worse" if found.low >= 0 else ""
            rows.append(
                Criterion(
                    CELLS[cell],
                    "says whether the maps at the end are worse than at their best",
                    f"{found}: {told or 'cannot be told'}",
                    bool(told),
                )
            )
    return criteria_frame(rows)


# %% [markdown]
# ## The networks in models
#
# [Figure 2](#fig-curves) follows each network that is shipped, with what else changes along training.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Against training step: image-specific IoU and IoU of the best head (at the cross-fitted best "
    "layer), coding rate and share of non-zero entries at the last layer. Mean over images and its "
    "95 % interval.",
    alt="Four line plots against the training step for each network that has snapshots.",
    needs=values,
)
def curves():
    """What there is truth for."""
    last = values[
        (values.split == "val") & (values.layer == values.groupby("model").layer.transform("max"))
    ]
    parts = {name: last[last.measure == name] for name in WHITE_BOX}
    frames = {
        name: interval_frame(part, "value", ["model", "step"]) for name, part in parts.items()
    }
    if len(chosen):
        of_maps = {
            name: interval_frame(chosen, name, ["model", "step"])
            for name in ("image_specific", "iou")
        }
        frames = of_maps | frames
    _, axes = plt.subplots(
        2, (len(frames) + 1) // 2, figsize=(10, 6.4), layout="constrained", squeeze=False
    )
    for ax, (name, frame) in zip(axes.flat, frames.items(), strict=False):
        colours = {label: study.colours[label] for label in frame.model.unique()}
        interval_curves(frame, colours, "step", name.replace("_", " "), ax)
        step_axis(sorted(frame.step.unique().tolist()), ax)
    axes[0, 0].legend(frameon=False)
    return pd.concat(frame.assign(quantity=name) for name, frame in frames.items())


# %% [markdown]
# ## By layer
#
# The parent paper shows the share of non-zero entries and the rate against layer for several moments of
# training, on the training and on the validation split. [Figure 3](#fig-layers) is that figure for the
# first network.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The first network by layer, from light (first weights) to dark (last): coding rate (left) and share "
    "of non-zero entries (right). Solid: validation images; dashed: training images. Means over images.",
    alt="Two line plots against the layer, one line for each snapshot and split.",
    needs=values,
)
def layers():
    """Both splits."""
    own = values[values.model == values.model.iloc[0]]
    means = own.groupby(["measure", "split", "step", "layer"]).value.mean()
    steps = sorted(own.step.unique())
    shades = plt.get_cmap("viridis_r")(
        [0.1 + 0.85 * n / max(1, len(steps) - 1) for n in range(len(steps))]
    )
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax, name in zip(axes, WHITE_BOX, strict=True):
        for split, line in (("val", "-"), ("train", "--")):
            for step, colour in zip(steps, shades, strict=True):
                if (name, split, step) in means.index:
                    curve = means[name, split, step]
                    label = f"step {step}" if split == "val" else None
                    ax.plot(curve.index + 1, curve, line, color=colour, label=label)
        ax.set(xlabel="layer", ylabel=name.replace("_", " "))
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return means.reset_index()


# %% [markdown]
# ## The same image at every step
#
# [Figure 4](#fig-same-image) shows every head at the layer that the paper takes, and below it the patch
# features of the image and of others as colours: components are found anew at each step, so a colour
# means nothing from one column to the next; what can be compared is which patches share one
# ([PCA](10-pca.ipynb)).


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "At every snapshot: attention of `[CLS]` in all heads on one image, and the patch features as "
    "colours (background by the first component in white).",
    alt="A sheet: a row for each head of each network and one for colours, a column for each step.",
    needs=values,
    pick={"image": study.starts(1)},
)
def same_image(image=0):
    """A column for each step."""
    tiles, names, columns = [], [], []
    for network in study.networks:
        lines, shown = {}, study.indices(4, image)
        for step, model in network.snapshots():
            inputs, size = network.inputs(shown), network.pixels(shown[:1])[0].shape[:2]
            maps = cls_attention(model, inputs[:1], network.layer)[0].cpu().numpy()
            for head, one in enumerate(maps):
                lines.setdefault(f"{network.label}\nhead {head + 1}", []).append(heat(one, size))
            readers = {"features": lambda s, m=model: merge_heads(s.projections)[:, m.patches]}
            found = collect(model, network.samples(shown), readers, [network.layer])["features"]
            rgb = pca_rgb(found[:, 0], maps.shape[1:])[0].numpy()
            lines.setdefault(f"{network.label}\nfeatures", []).append(rgb_tile(rgb, size))
            if f"step {step}" not in columns:
                columns.append(f"step {step}")
        tiles += lines.values()
        names += lines
    _, ax = plt.subplots(figsize=(9, 1.15 * len(tiles)))
    sheet(tiles, columns, names, ax)
    return pd.DataFrame({"row": names})


# %% [markdown]
# ## How our setting differs
#
# The paper follows a network over 90 epochs of ImageNet-21k. Ours see some ten thousand drawn animals
# ([Models and data](01-models-and-data.ipynb)); the first snapshot lies before any training.
#
# ## What would have disproved the claim
#
# - Maps that are as image-specific before training as after it.
# - A ViT whose maps gain along training too, and keep it: then it is not CRATE only.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
