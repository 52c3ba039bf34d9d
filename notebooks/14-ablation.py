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
# # Does the ablation survive another seed?
#
# **The claim.** From one network for each of the four combinations of MSSA or MHSA with ISTA or an MLP,
# it is read that both halves of the design matter, for attention maps and for MaskCut. The base network
# segments no better than the small one, an mIoU of 23.6 against 23.9
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Table 2 and Fig. 4).
#
# **The test.** Effects of each half with intervals over training runs, not over images: a difference that
# another seed can undo is no effect of a design. The four cells differ in nothing but the two halves; a
# ViT, which also embeds patches and sets its biases in its own way, is a fifth.

# %% tags=["parameters"]
models: list[str] = [
    "crate-creatures",
    "crate-creatures-s1",
    "crate-creatures-s2",
    "crate-mlp-creatures",
    "crate-mlp-creatures-s1",
    "crate-mhsa-creatures",
    "crate-mhsa-creatures-s1",
    "vit-creatures",
    "vit-creatures-s1",
    "vit-creatures-s2",
]
runs: str = "halves"  # the trainings: a shipped table of runs, a file, or nothing
sizes: list[str] = ["crate-dim64-creatures", "vit-dim64-creatures"]  # narrower networks
dataset: str = "creatures"
n_images: int = 150
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
scenes: str = "creatures-scenes"  # where MaskCut looks for objects
n_scenes: int = 30
gate: float = 0.85  # least accuracy of a training that counts, declared before the runs
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis import load_dataset
from crate_analysis.measures import (
    MeanInterval,
    contrast_interval,
    cross_fit,
    mean_interval,
    run_interval,
)
from crate_analysis.models import load_models
from crate_analysis.plotting import interval_dots, model_colours, run_dots
from crate_analysis.segmentation import (
    Scoring,
    best_heads,
    best_overlaps,
    detect_objects,
    image_specific,
    scores_with_rivals,
    true_objects,
)
from crate_analysis.study import Finding, Study
from crate_analysis.training.measured import (
    Criterion,
    by_seed,
    criteria_frame,
    each_run,
    gate_criteria,
    measured,
)

study = Study(globals(), "14-ablation")
scoring = Scoring(values=("iou",))
trainings = measured(runs)
CELLS = {
    "mssa-ista": "MSSA + ISTA",
    "mssa-mlp": "MSSA + MLP",
    "mhsa-ista": "MHSA + ISTA",
    "mhsa-mlp": "MHSA + MLP",
}
CONTRASTS = {
    "MSSA for MHSA": (0.5, 0.5, -0.5, -0.5),
    "ISTA for an MLP": (0.5, -0.5, 0.5, -0.5),
    "ISTA for an MLP, beside MSSA": (1.0, -1.0, 0.0, 0.0),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}
IOU = "image-specific IoU"
LAYERS = "image-specific IoU, mean over layers"
COVER = "MaskCut's mean best IoU"
AP50 = "MaskCut's AP50"
TABLE, NETWORKS = "these trainings", "the networks in models"


def cell_of(model):
    """The combination that a network is of."""
    return f"{model.config.attention.upper()} + {model.config.nonlinearity.upper()}"


# %% [markdown]
# ## What was declared
#
# Before the first run, `params/experiments/halves.yml` settled the runs, the number and what would count:
#
# - **The number.** The image-specific IoU of the best head: its own map's IoU less that of maps of other
#   images, at the cross-fitted best layer of each run. Secondary: its mean over layers, and what MaskCut
#   finds.
# - **The gate.** More than 85 % of the validation images named rightly.
# - **Success.** The half-width of the 95 % interval of ISTA's effect beside MSSA is at most .025. Both
#   effects and their interaction are reported, whatever they are.
#
# One recipe and one precision for all, the learning rate searched for each cell. The table of all
# trainings is shipped with the book.

# %% [markdown]
# ## The measurement
#
# The image-specific IoU is what the best head scores beyond the network's own maps of other images
# ([Does attention segment?](07-segmentation.ipynb)). On scenes, MaskCut's masks are scored by their mean
# best IoU with the objects. The table of trainings holds the same numbers; here they are measured on the
# networks in `models`, which are of an earlier recipe, trained longer and with AdamW: a second sample.


# %%
def maps(model, images):
    """The image-specific IoU of the best head, by layer and image."""
    scores = scores_with_rivals(
        model, images, images, scoring, None, ["other images"], seed=seed, reading=study.reading
    )
    return image_specific(best_heads(scores.query("not is_part")))


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def cuts(network):
    """How well MaskCut's masks cover the objects of each scene, by layer."""
    found = detect_objects(
        network.model, scene_images, folder, range(len(network.model.layers)), reading=study.reading
    )
    parts = [best_overlaps(part, true).assign(layer=at) for at, part in found.groupby("layer")]
    return pd.concat(parts).rename(columns={"mask": "cover"})


iou = study.each(lambda network: maps(network.model, network.images), needs="masks")
folder = Path(output).expanduser() / "detections"
patch = study.networks[0].model.config.patch_size
scene_images = load_dataset(scenes, "val", 24 * patch, n_scenes, seed) if len(iou) else None
true = true_objects(scene_images) if len(iou) else None
covers = study.each(cuts, needs="masks")
cells = {network.label: cell_of(network.model) for network in study.networks}
MEASURES = {
    "image-specific IoU": (iou, "image_specific", "best layer"),
    "image-specific IoU, mean over layers": (iou, "image_specific", "mean"),
    "MaskCut's mean best IoU": (covers, "cover", "best layer"),
}


def by_run(frame, value, rule):
    """One value an image for each run: at its cross-fitted best layer, or the mean over layers."""
    columns = ["model", "layer", "image", value]
    if rule == "mean":
        return frame[columns].groupby(["model", "image"])[value].mean().reset_index()
    return cross_fit(frame[columns], "layer", value)


measured_here = pd.DataFrame(
    [
        (measure, label, cells[label], *mean_interval(part[value]))
        for measure, (frame, value, rule) in MEASURES.items()
        if len(frame)
        for label, part in by_run(frame, value, rule).groupby("model", sort=False)
    ],
    columns=["measure", "label", "model", "mean", "low", "high"],
)


def groups_of_table(measure):
    """The values of the trainings that pass the gate, for each of the four combinations."""
    return [by_seed(trainings, cell, measure, gate).tolist() for cell in CELLS]


def groups_of_networks(measure):
    """The values of the networks in `models`, for each of the four combinations."""
    rows = measured_here[measured_here.measure == measure]
    return [rows[rows.model == cell]["mean"].tolist() for cell in CELLS.values()]


grouped = {
    (source, measure): values
    for source, of in ((TABLE, groups_of_table), (NETWORKS, groups_of_networks))
    for measure in (IOU, LAYERS, COVER, AP50)
    if all(values := of(measure)) and max(map(len, values)) > 1
}
effects = pd.DataFrame(
    [
        (source, measure, label, *contrast_interval(values, weights))
        for (source, measure), values in grouped.items()
        for label, weights in CONTRASTS.items()
    ],
    columns=["source", "measure", "effect", "mean", "low", "high"],
)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Over {by[these trainings][trainings].mean:.0f} trainings MSSA in place of MHSA moves the "
    "image-specific IoU by {by[these trainings][MSSA for MHSA: image-specific IoU]}, ISTA in place of an "
    "MLP by {by[these trainings][ISTA for an MLP: image-specific IoU]}.",
    "Their interaction is {by[these trainings][interaction: image-specific IoU]}; beside MSSA alone, ISTA "
    "moves it by {by[these trainings][ISTA for an MLP, beside MSSA: image-specific IoU]}.",
    "Two trainings that differ in nothing but the seed are "
    "{by[these trainings][spread of runs: image-specific IoU].mean:.3f} apart (standard deviation).",
    "For what MaskCut finds, the two effects are "
    "{by[these trainings][MSSA for MHSA: MaskCut's mean best IoU]} and "
    "{by[these trainings][ISTA for an MLP: MaskCut's mean best IoU]}.",
    "A ViT has {by[these trainings][a ViT less MHSA + MLP: image-specific IoU]} more than MHSA with an MLP "
    "in CRATE's frame: what else a ViT does differently counts too. CRATE has "
    "{by[these trainings][CRATE less a ViT: image-specific IoU]} more than a ViT.",
    "{by[the networks in models][trainings].mean:.0f} networks of an earlier recipe, measured here, give "
    "{by[the networks in models][MSSA for MHSA: image-specific IoU]} for MSSA and "
    "{by[the networks in models][ISTA for an MLP: image-specific IoU]} for ISTA.",
    needs=effects,
)
def findings():
    """Intervals over training runs."""
    claims = {"MSSA for MHSA": "mssa", "ISTA for an MLP": "ista"}
    claims |= {"ISTA for an MLP, beside MSSA": "ista"}
    first = effects.source[0]
    for source in dict.fromkeys(effects.source):
        count = sum(map(len, grouped[source, IOU]))
        yield Finding(source, "trainings", float(count))
        for measure in [of for by, of in grouped if by == source and of in (IOU, COVER)]:
            values = grouped[source, measure]
            for label, weights in CONTRASTS.items():
                claim = claims.get(label, "") if source == first else ""
                interval = contrast_interval(values, weights)
                yield Finding(source, f"{label}: {measure}", interval, claim)
            squares = sum(((np.array(cell) - np.mean(cell)) ** 2).sum() for cell in values)
            freedom = sum(len(cell) - 1 for cell in values)
            spread = float((squares / freedom) ** 0.5)
            yield Finding(source, f"spread of runs: {measure}", spread)
            vit = by_seed(trainings, "vit", measure, gate) if source == TABLE else []
            if len(vit) > 1:
                of_crate = contrast_interval([values[0], vit], (1, -1))
                yield Finding(source, f"CRATE less a ViT: {measure}", of_crate)
                of_frame = contrast_interval([vit, values[3]], (1, -1))
                yield Finding(source, f"a ViT less MHSA + MLP: {measure}", of_frame)


# %% [markdown]
# **These intervals are over training runs.** In `models` the fourth combination is a ViT, as in the
# paper, which includes what else a ViT does differently; in the table it is a CRATE with MHSA and an MLP.
#
# ## Every training
#
# [Figure 1](#fig-every-training) shows how far trainings of one cell lie apart;
# [Figure 2](#fig-effect) what is left for the design.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Every training, a dot each: image-specific IoU of the best head and MaskCut's mean best IoU, each at "
    "the training's own best layer. Filled dots pass the gate. Lines: the mean over those that pass and "
    "its 95 % interval over trainings.",
    alt="Two panels with a row of dots for each combination of MSSA or MHSA with ISTA or an MLP, and a ViT.",
    needs=effects,
)
def every_training():
    """A panel for each measure at the best layer."""
    names = CELLS | {"vit": "ViT"}
    if len(trainings):
        dots = pd.concat(
            each_run(trainings, names, measure, gate).assign(measure=measure)
            for measure in (IOU, COVER)
        )
    else:
        here = measured_here.drop(columns=["low", "high"]).assign(counts=True)
        dots = here.rename(columns={"model": "cell", "label": "run", "mean": "value"})
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    colours = model_colours(list(dict.fromkeys(dots.cell)))
    for ax, measure in zip(axes, (IOU, COVER), strict=True):
        of = dots[dots.measure == measure]
        means = {
            cell: run_interval(part[part.counts].value)
            if part.counts.any()
            else MeanInterval(np.nan, np.nan, np.nan)
            for cell, part in of.groupby("cell", sort=False)
        }
        run_dots(of, means, colours, measure, ax)
    return dots


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Effects of each half of the design and their interaction, with 95 % t-intervals over trainings: of "
    "the declared experiment, and of the networks in `models` (an earlier recipe).",
    alt="Dot plots of the effects with intervals, one for each measure.",
    needs=effects,
)
def effect():
    """A panel for each measure, a colour for each source."""
    shown = [measure for measure in (IOU, COVER) if measure in set(effects.measure)]
    colours = model_colours([TABLE, NETWORKS])
    _, axes = plt.subplots(
        1,
        len(shown),
        figsize=(5 * len(shown), 3.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, measure in zip(axes[0], shown, strict=True):
        rows = effects[effects.measure == measure].sort_values("effect", kind="stable")
        rows = rows.set_index("effect").loc[list(CONTRASTS)].reset_index()
        label = rows.effect.where(~rows.effect.duplicated(), "")
        interval_dots(
            rows.assign(label=label, model=rows.source),
            colours,
            xlabel=f"effect on {measure}",
            ax=ax,
        )
        ax.locator_params(axis="x", nbins=6)
    for source in dict.fromkeys(effects.source):
        axes[0, 0].plot([], [], "o-", color=colours[source], label=source)
    axes[0, 0].figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return effects


# %% [markdown]
# The mean over layers and MaskCut's AP50 were declared as secondary; [Table 1](#tab-measures) has them
# beside the two.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Effects over the declared trainings, in every measure.", needs=trainings)
def measures():
    """A row for each measure."""
    rows = []
    for (source, measure), values in grouped.items():
        if source == TABLE:
            found = {label: contrast_interval(values, of) for label, of in CONTRASTS.items()}
            rows.append({"measure": measure} | {label: str(one) for label, one in found.items()})
    return pd.DataFrame(rows, columns=["measure", *CONTRASTS])


# %% [markdown]
# ## The cells beside the paper's
#
# [Table 2](#tab-combinations) has our means and standard deviations over trainings, and **the paper's**
# numbers, one network each, for size S on photographs. The paper's fourth combination is a ViT.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Means and standard deviations over trainings that pass the gate, and the paper's numbers.",
    needs=trainings,
)
def combinations():
    """One row a cell."""
    paper = {
        "mssa-ista": (23.9, 2.1),
        "mssa-mlp": (22.0, 0.2),
        "mhsa-ista": (18.4, 0.1),
        "vit": (14.1, 0.1),
    }
    rows = []
    for cell, name in (CELLS | {"vit": "ViT"}).items():
        accuracy = by_seed(trainings, cell, "accuracy")
        passed = by_seed(trainings, cell, "accuracy", gate)
        rate = trainings[trainings.cell == cell].learning_rate.unique()
        row = [name, f"{len(passed)} of {len(accuracy)}", ", ".join(f"{one:g}" for one in rate)]
        row.append(f"{100 * accuracy.mean():.1f}" if len(accuracy) else "")
        for measure in (IOU, LAYERS, COVER, AP50):
            values = by_seed(trainings, cell, measure, gate)
            row.append(f"{values.mean():.3f} ± {values.std():.3f}" if len(values) > 1 else "")
        rows.append((*row, *paper.get(cell, ("", ""))))
    columns = ["cell", "pass", "rate", "accuracy, %", IOU, LAYERS, COVER, AP50]
    return pd.DataFrame(rows, columns=[*columns, "paper: mIoU", "paper: AP50"])


# %% [markdown]
# ## The declared criteria
#
# [Table 3](#tab-declared) answers the declaration in its own words.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("What was declared, and what the trainings show.", needs=trainings)
def declared():
    """In the words of the declaration."""
    rows = gate_criteria(trainings, CELLS, gate)
    counts = [len(by_seed(trainings, cell, IOU, gate)) for cell in CELLS]
    found = ", ".join(map(str, counts))
    rows.append(Criterion("each cell", "at least four trainings", found, min(counts) >= 4))
    if (TABLE, IOU) in grouped:
        of = effects[(effects.source == TABLE) & (effects.measure == IOU)].set_index("effect")
        row = of.loc["ISTA for an MLP, beside MSSA"]
        half = (row.high - row.low) / 2
        declared = "half-width at most .025"
        rows.append(Criterion("ISTA's effect beside MSSA", declared, f"{half:.3f}", half <= 0.025))
    return criteria_frame(rows)


# %% [markdown]
# ## Width
#
# The paper finds that size does not help segmentation. [Table 4](#tab-widths) sets narrower networks
# beside the first of each family: one run each, so the intervals, over images, speak of these networks
# alone.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Image-specific IoU by width, at each network's own best layer.", needs=iou)
def widths():
    """The first CRATE and ViT, and the narrow ones."""
    firsts = {}
    for network in study.networks:
        firsts.setdefault(network.model.config.family, network.model)
    rows = []
    for model in (*firsts.values(), *(load_models(sizes, device).values() if sizes else ())):
        images = load_dataset(dataset, "val", model.config.image_size, n_images, seed)
        value = by_run(maps(model, images).assign(model=model.name), "image_specific", "best layer")
        rows.append((model.name, model.config.dim, str(mean_interval(value.image_specific))))
    return pd.DataFrame(rows, columns=["network", "width", "image-specific IoU"])


# %% [markdown]
# ## How our setting differs
#
# Small networks on drawn animals ([Models and data](01-models-and-data.ipynb)), which learn in minutes
# what the paper's learn from ImageNet.
#
# ## What would have disproved the claim
#
# - An effect of a half whose interval over runs contains 0, or lies below it.
# - An interaction as large as the effects: then a half helps only beside the other.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
