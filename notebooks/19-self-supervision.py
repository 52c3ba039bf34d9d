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
# # Does attention need labels, or their absence?
#
# **The claim.** A ViT that learned without labels, by DINO, has attention that segments, and a ViT that
# learned from labels has not ([Caron et al. 2021](../book/bibliography.md#caron2021dino),
# [Yu et al. 2024](../book/bibliography.md#yu2024emergence)): a ViT needs self-supervision for it, CRATE
# does not.
#
# **The test.** CRATE and a ViT learn from two images of the same animal on different stages, by DINO and by
# SimDINO ([Wu et al. 2025](../book/bibliography.md#wu2025simdino)), which keeps features apart by the
# coding rate of CRATE's derivation. A training counts where it learned something: its `[CLS]` features
# must tell animals apart better than raw pixels do. The image-specific IoU of its best head stands beside
# that of the same design trained from labels.

# %% tags=["parameters"]
models: list[str] = [
    "crate-creatures",
    "crate-simdino-creatures",
    "vit-creatures",
    "vit-simdino-creatures",
    "vit-dino-creatures",
]
runs: str = "self-supervision"  # the trainings: a shipped table of runs, a file, or nothing
supervised: str = "halves"  # a table with trainings of the same designs from labels, or nothing
longer: str = "when"  # a table with such trainings five times as long, or nothing
dataset: str = "creatures"
n_images: int = 100
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
gate: float = 0.85  # least accuracy of a training from labels that counts
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import contrast_interval, cross_fit, run_interval
from crate_analysis.plotting import heat, model_colours, run_dots, sheet
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import Scoring, best_heads, image_specific, scores_with_rivals
from crate_analysis.segmentation.rivals import OTHERS
from crate_analysis.study import Finding, Study
from crate_analysis.training.measured import (
    Criterion,
    by_seed,
    criteria_frame,
    each_run,
    measured,
)

study = Study(globals(), "19-self-supervision")
trainings = measured(runs)
NEIGHBOURS = "neighbours' accuracy"
PIXELS = "neighbours' accuracy of raw pixels"
IOU = "image-specific IoU"
DESIGNS = {"crate": "CRATE", "vit": "ViT"}
WAYS = {"simdino": "SimDINO", "dino": "DINO"}
LABELS = {"crate": "mssa-ista", "vit": "vit"}  # cells of `supervised`
LONGER = {"crate": "crate-long", "vit": "vit-long"}  # cells of `longer`
RIVALS = {"labels": LABELS, "labels, 5 x": LONGER}


def called(design, way):
    """How a cell is called in figures."""
    return f"{DESIGNS[design]}, {WAYS.get(way, way)}"


declared_cells = {f"{design}-{way}": called(design, way) for design in DESIGNS for way in WAYS}
cells = {cell: name for cell, name in declared_cells.items() if cell in set(trainings.cell)}
from_labels = pd.concat(
    table[table.cell.isin(of.values())]
    for table, of in ((measured(supervised), LABELS), (measured(longer), LONGER))
)
references = {
    of[design]: called(design, way)
    for way, of in RIVALS.items()
    for design in DESIGNS
    if of[design] in set(from_labels.cell)
}
raw = trainings[trainings.quantity == PIXELS]["mean"].max()


def passing(cell, quantity):
    """Of a cell's trainings that passed their gate, the value of each."""
    if cell in references:
        return by_seed(from_labels, cell, quantity, gate)
    return by_seed(trainings, cell, quantity, raw, NEIGHBOURS)


# %% [markdown]
# ## What was declared
#
# Before the first run, `params/experiments/self-supervision.yml` settled the runs, the number and what
# would count:
#
# - **The number.** The image-specific IoU of the best head, at the cross-fitted best layer, beside that of
#   the network of the same design that learned from labels.
# - **The gate.** The nearest training images in the `[CLS]` features vote on the class of a validation
#   image; they must be right more often than the nearest in raw pixels at 18 x 18.
# - **Success.** At least one training of each design passes.
#
# **What was changed before the first run.** The recipe, and nothing else. In pilots of at most one epoch,
# looked at on `dev` alone, the size of the batch decided whether anything was learned: the file says by how
# much.
#
# **What was changed after a run.** DINO's settings. SimDINO's had been looked for in pilots and DINO's had
# not, and the first CRATE by DINO failed. After pilots of its own DINO has the values of its paper for the
# temperature, the centre and the teacher's momentum. The first run does not count.
#
# The table of all trainings is shipped with the book, and the weights of the first of each kind that passes.
#
# ## The measurement
#
# The same for the networks in `models`, one training each.

# %%
scores = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        network.images,
        Scoring(values=("iou",)),
        rivals=[OTHERS],
        reading=study.reading,
    ),
    needs="masks",
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
columns = ["model", "layer", "image", "iou", "image_specific"]
specific = image_specific(best_heads(scores.query("not is_part"))) if len(scores) else scores
chosen = cross_fit(specific[columns], "layer", "image_specific") if len(scores) else scores

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Without labels, by SimDINO, a ViT's image-specific IoU is {by[ViT, SimDINO][image-specific IoU]}, and "
    "{by[ViT, labels][image-specific IoU]} from labels; CRATE's is {by[CRATE, SimDINO][image-specific IoU]} "
    "and {by[CRATE, labels][image-specific IoU]}.",
    "Less that from labels, a ViT's is {by[ViT, SimDINO][IoU less that from labels]} by SimDINO and "
    "{by[ViT, DINO][IoU less that from labels]} by DINO, CRATE's "
    "{by[CRATE, SimDINO][IoU less that from labels]} by SimDINO.",
    "Of trainings by SimDINO {by[CRATE, SimDINO][trainings that pass].mean:.0f} of "
    "{by[CRATE, SimDINO][trainings].mean:.0f} CRATEs and {by[ViT, SimDINO][trainings that pass].mean:.0f} of "
    "{by[ViT, SimDINO][trainings].mean:.0f} ViTs pass the gate, and by DINO "
    "{by[CRATE, DINO][trainings that pass].mean:.0f} of {by[CRATE, DINO][trainings].mean:.0f} and "
    "{by[ViT, DINO][trainings that pass].mean:.0f} of {by[ViT, DINO][trainings].mean:.0f}.",
    "The image-specific IoU of {main} is {main[image-specific IoU]}.",
    "That of {other} is {other[image-specific IoU]}.",
    needs=trainings if len(trainings) else chosen,
)
def findings():
    """Over trainings that pass; without a table of them, of each network over images."""
    yield Finding("raw pixels", NEIGHBOURS, raw if len(trainings) else [])
    for cell, name in {**declared_cells, **references}.items():
        values = passing(cell, IOU)
        if cell in declared_cells:
            accuracy = by_seed(trainings, cell, NEIGHBOURS)
            passed = int((accuracy > raw).sum())
            yield Finding(name, "trainings", float(len(accuracy)) if len(accuracy) else [])
            yield Finding(name, "trainings that pass", float(passed) if len(accuracy) else [])
            yield Finding(name, NEIGHBOURS, accuracy.mean() if len(accuracy) else [])
        yield Finding(name, IOU, run_interval(values) if len(values) else [])
    for cell, name in declared_cells.items():
        design = cell.partition("-")[0]
        for way, of in RIVALS.items():
            groups = [passing(cell, IOU), passing(of[design], IOU)]
            enough = min(map(len, groups)) and sum(map(len, groups)) > 2
            claim = "self-supervision" if design == "vit" else ""
            less = contrast_interval(groups, (1, -1)) if enough else []
            yield Finding(name, f"IoU less that from {way}", less, claim)
    for label in [] if len(trainings) else study.labels:
        own = chosen[chosen.model == label]
        yield Finding(label, IOU, own.image_specific if len(own) else [])


# %% [markdown]
# Intervals are over trainings that pass the gate; without a table of trainings, over the images of each
# network.
#
# ## Every training
#
# [Figure 1](#fig-every-training) has them all.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Every training, a dot each, filled where it passes the gate. Left: how often the vote of the nearest "
    "training images is right; the dotted line is the vote in raw pixels. Right: image-specific IoU of the "
    "best head, and below the same designs trained from labels, and for five times as long. Lines: the "
    "mean over trainings that pass and its 95 % interval.",
    alt="Two panels with a row of dots for each design and way of training.",
    needs=trainings,
)
def every_training():
    """A row for each design and way."""
    rows = {**cells, **references}
    of_design = model_colours(list(DESIGNS.values()))
    colours = {name: of_design[name.partition(",")[0]] for name in rows.values()}
    _, axes = plt.subplots(
        1, 2, figsize=(9.5, 0.5 * len(rows) + 1), sharey=True, layout="constrained"
    )
    frames = []
    for ax, quantity in zip(axes, (NEIGHBOURS, IOU), strict=True):
        dots = pd.concat(
            [
                each_run(trainings, cells, quantity, raw, NEIGHBOURS),
                each_run(from_labels, references, quantity, gate),
            ]
        )
        means = {
            name: run_interval(values) if len(values) else (float("nan"),) * 3
            for cell, name in rows.items()
            for values in [passing(cell, quantity)]
        }
        run_dots(dots, means, colours, quantity, ax)
        frames.append(dots.assign(quantity=quantity))
    axes[0].axvline(raw, color="0.35", linestyle=":", linewidth=1)
    return pd.concat(frames)


# %% [markdown]
# ## The maps
#
# [Figure 2](#fig-maps) shows for each network the head that is best on the image, at the layer that is best
# on the other half of the images. Each network is one training of several: look at
# [Figure 1](#fig-every-training) before you take a row for a design.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Images, and below them for each network the attention of `[CLS]` of the head whose map covers the "
    "object best, at the cross-fitted best layer. Printed: the mean image-specific IoU of the row.",
    alt="A row of images of animals, and below it a row of attention maps for each network.",
    needs=chosen,
    pick={"first_image": study.starts(8)},
)
def maps(first_image=0):
    """A row for each network."""
    scored = set(chosen.image)  # an image without an object is not
    shown = [index for index in study.indices(8, first_image) if index in scored]
    tiles, rows, data = [study.networks[0].pixels(shown)], [""], []
    heads = scores[(scores["maps"] == "own") & ~scores.is_part & scores.image.isin(shown)]
    for network in study.networks:
        own = chosen[(chosen.model == network.label) & chosen.image.isin(shown)]
        if own.empty:
            continue
        best = own.merge(
            heads[["model", "layer", "image", "head", "iou"]], on=["model", "layer", "image"]
        )
        best = best.sort_values("iou_y").groupby("image").last().loc[shown]
        inputs = network.inputs(shown)
        tiles.append(
            [
                heat(
                    cls_attention(network.model, one[None], layer)[0, head].cpu(),
                    tiles[0][0].shape[:2],
                )
                for one, layer, head in zip(inputs, best.layer, best["head"], strict=True)
            ]
        )
        rows.append(f"{network.label}\n{own.image_specific.mean():.2f}")
        data.append(best.reset_index().assign(model=network.label))
    _, ax = plt.subplots(figsize=(9, 9 / 8 * len(tiles) + 0.2))
    sheet(tiles, rows=rows, ax=ax)
    return pd.concat(data)


# %% [markdown]
# ## The declared criteria
#
# [Table 1](#tab-declared) answers the declaration in its own words.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("What was declared, and what the trainings show.", needs=trainings)
def declared():
    """In the words of the declaration."""
    rows = []
    passed = dict.fromkeys(DESIGNS, 0)
    for cell, name in declared_cells.items():
        accuracy = by_seed(trainings, cell, NEIGHBOURS)
        found = ", ".join(f"{share:.1%}" for share in accuracy) or "no training yet"
        met = bool((accuracy > raw).all()) if len(accuracy) else None
        rows.append(Criterion(name, f"neighbours right on more than {raw:.1%}", found, met))
        passed[cell.partition("-")[0]] += int((accuracy > raw).sum())
    for design, count in passed.items():
        rows.append(
            Criterion(DESIGNS[design], "at least one training passes", str(count), count > 0)
        )
    return criteria_frame(rows)


# %% [markdown]
# ## How our setting differs
#
# DINO learns from crops of one photograph, over hundreds of epochs of ImageNet in batches of 1,024. Ours
# learn from two drawings of the same animal on different stages, so that the stage does not give the pair
# away; for two epochs in batches of 16. That is eight times as many steps as the usual networks from labels
# had, and twice as many images; those trained five times as long had more images and fewer steps.
# DINO's head has 512 outputs, not 65,536.
#
# ## What would have disproved the claim
#
# - A ViT without labels whose best head covers the animal no better than one trained from labels.
# - A CRATE that needs the absence of labels as a ViT does.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
