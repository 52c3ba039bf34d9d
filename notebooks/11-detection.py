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
# # Can the objects be cut out of the features?
#
# **The claim.** MaskCut ([Wang et al. 2023](../book/bibliography.md#wang2023cutler)) finds objects
# without labels, by cutting the graph of patches whose features are alike. On the features of a CRATE
# trained only to classify it finds objects that a ViT trained the same way does not show, most of all
# in the deeper layers; both halves of a layer are needed, and detection comes with training
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Tables 1 and 2, Figs. 5, 6 and 10).
#
# **The test.** COCO's average precision (AP) of what is cut out, beside the same network before its
# training at a layer chosen by the same rule, and beside MaskCut on raw pixels.

# %% tags=["parameters"]
models: list[str] = [
    "crate-creatures",
    "crate-mlp-creatures",
    "crate-mhsa-creatures",
    "vit-simdino-creatures",
    "vit-creatures",
]
dataset: str = "creatures-scenes"
n_images: int = 60
image_size: "int or None" = 144  # pixels a side
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
layers: "list[int] or None" = None  # those to cut besides that one; None for all
n_masks: int = 3  # of an image
tau: float = 0.15
device: str = "cpu"
workers: int = 0  # processes that read images, and from two on as many that cut
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.datasets.coco import decode
from crate_analysis.measures import MeanInterval, cross_fit
from crate_analysis.plotting import (
    interval_curves,
    interval_dots,
    reference_line,
    sheet,
    step_axis,
    tint,
)
from crate_analysis.segmentation import (
    baseline_objects,
    best_overlaps,
    coco_average_precision,
    detect_objects,
    true_objects,
)
from crate_analysis.shards import Window
from crate_analysis.study import Finding, Study
from crate_analysis.walk import check_layer

study = Study(globals(), "11-detection")
images = study.networks[0].images
cutting = {"n_masks": n_masks, "tau": tau, "reading": study.reading}
folder = Path(output).expanduser() / "detections"


def layers_of(network):
    """The layers to cut: the one that is read, and those asked for."""
    wanted = range(len(network.model.layers)) if layers is None else layers
    return sorted({network.layer, *(check_layer(network.model, one) for one in wanted)})


def precision(found, truth=None):
    """COCO's numbers in percent; of objects without a layer where each image has its own."""
    scored = coco_average_precision(found.assign(layer=-1), true if truth is None else truth)
    scored = scored.rename(columns={"value": "mean"})
    return scored.assign(**{end: 100 * scored[end] for end in ("mean", "low", "high")})


# %% [markdown]
# ## The measurement
#
# Two patches are joined where the cosine of their features ($U_k^\top \mathrm{LN}(Z)$ of all heads, a
# ViT's keys) exceeds $\tau$. The second eigenvector of the normalised cut
# ([Shi and Malik 2000](../book/bibliography.md#shi2000normalized)) splits them in two; the side that
# stands out most is an object. Its patches are taken out and the rest is cut again. All layers are read
# in one pass, and what is found is written to `detections/` as it is found: a stopped run resumes there.
# MaskCut gives no score to its masks; we take the order of the cuts, and average over the orders of
# equal scores.

# %%
found = study.each(
    lambda network: detect_objects(
        network.model, network.images, folder, layers_of(network), **cutting
    ),
    untrained=True,
)
true = true_objects(images)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
patch = study.networks[0].model.config.patch_size
has_objects = study.has("masks")
if has_objects:
    baselines = baseline_objects(images, patch, n_masks, tau, study.reading)
    key = ["model", "weights", "layer"]
    overlaps = pd.concat(
        best_overlaps(part, true).assign(**dict(zip(key, names, strict=True)))
        for names, part in found.groupby(key, sort=False)
    ).rename(columns={"mask": "best_iou"})
    cover = overlaps[[*key, "image", "best_iou"]]
    # each image is cut at the layer that is best on the other half of the images
    picked = cross_fit(cover, "layer", "best_iou")[["model", "weights", "image", "layer"]]
    best_layer = found.merge(picked, on=list(picked))
    scores = pd.concat(
        [
            *(
                precision(part).assign(model=model, weights=weights, place=place)
                for place, frame in (
                    ("layer read", study.at_layer(found)),
                    ("best layer", best_layer),
                )
                for (model, weights), part in frame.groupby(["model", "weights"], sort=False)
            ),
            *(
                precision(part).assign(model=model, weights="none", place=place)
                for place in ("layer read", "best layer")
                for model, part in baselines.groupby("model", sort=False)
            ),
        ],
        ignore_index=True,
    )
    ap50 = scores[(scores.kind == "box") & (scores.metric == "AP50")]
    ap50 = ap50.set_index(["place", "weights", "model"])[["mean", "low", "high"]]
else:
    overlaps, scores, best_layer = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "At the layer that the paper reads, boxes cut from {main} have an AP50 of "
    "{main[box AP50].mean:.1f}, from {other} {other[box AP50].mean:.1f}, from raw pixels "
    "{by[raw pixels][box AP50].mean:.1f}.",
    "Each at its own best layer, chosen on other images, they have {main[box AP50, best layer]} and "
    "{other[box AP50, best layer]}; before training, by the same rule, "
    "{main[box AP50, best layer, untrained]} and {other[box AP50, best layer, untrained]}.",
    "Image by image, training changes how well the best masks of {main} cover the objects by "
    "{main[mean best IoU, training adds]}, those of {other} by "
    "{other[mean best IoU, training adds]}.",
    "Beside {other}, {main} covers them {main[mean best IoU, difference]:better|worse|neither better nor "
    "worse} ({main[mean best IoU, difference]}).",
    needs="masks",
)
def findings():
    """AP with its interval over images; overlaps one value an image."""
    of_image = cross_fit(cover, "layer", "best_iou")
    of_image = of_image.set_index(["model", "weights", "image"]).best_iou
    for label in study.labels:
        claim = "detection" if label == study.labels[0] else ""
        yield Finding(label, "box AP50", MeanInterval(*ap50.loc["layer read", "trained", label]))
        for weights, ending in (("trained", ""), ("untrained", ", untrained")):
            interval = MeanInterval(*ap50.loc["best layer", weights, label])
            yield Finding(label, f"box AP50, best layer{ending}", interval)
        added = (of_image[label, "trained"] - of_image[label, "untrained"]).dropna()
        yield Finding(label, "mean best IoU, training adds", added, claim)
    main, other = study.labels[0], study.labels[-1]
    if main != other:
        difference = (of_image[main, "trained"] - of_image[other, "trained"]).dropna()
        yield Finding(main, "mean best IoU, difference", difference, "detection")
    for name in ("raw pixels", "patch ceiling"):
        yield Finding(name, "box AP50", MeanInterval(*ap50.loc["layer read", "none", name]))


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs.
#
# ## What is cut
#
# [Figure 1](#fig-objects) shows images at fixed ranks of the first network's mean best IoU. Colours stand
# for the order of the cuts: the first is red, then blue, then green.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "What MaskCut finds in the features of each network at the layer that is read. Red, blue, green: "
    "first, second and third cut (in the row of the truth: the true objects).",
    alt="A sheet of images, their true objects, and the masks found in the features of each network.",
)
def objects():
    """Five images; by rank where there is truth."""
    chosen, titles = study.indices(5), []
    if has_objects:
        mine = study.at_layer(overlaps).query("model == @study.labels[0] and weights == 'trained'")
        order = mine.sort_values("best_iou", ascending=False).image.to_numpy()
        chosen = order[np.linspace(0, len(order) - 1, 5).round().astype(int)].tolist()
        titles = ["best", "upper quartile", "median", "lower quartile", "worst"]
    samples = study.networks[0].samples(chosen)
    shown = study.networks[0].pixels(chosen)
    tiles, names = [shown], ["image"]
    if has_objects:
        tiles.append([tint(i, s.masks.numpy()) for i, s in zip(shown, samples, strict=True)])
        names.append("truth")
    rows = study.at_layer(found).query("weights == 'trained'")
    for label in study.labels:
        line = []
        for index, image in zip(chosen, shown, strict=True):
            own = rows[(rows.model == label) & (rows.image == index)].segmentation
            masks = np.array([decode(one, *image.shape[:2]).numpy() for one in own], bool)
            line.append(tint(image, masks))
        tiles.append(line)
        names.append(label)
    _, ax = plt.subplots(figsize=(9, 1.75 * len(tiles)))
    sheet(tiles, titles, names, ax)
    return rows[rows.image.isin(chosen)][["model", "image", "layer", "score", "bbox"]]


# %% [markdown]
# ## By layer
#
# [Figure 2](#fig-by-layer) is Fig. 6 of the paper on these images: AP of boxes against the layer whose
# features are cut. Beside it the same network before training, at every layer: what a design does
# without training is no finding about training.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Box AP50 of MaskCut on the features of each layer, trained (left) and before training (right), "
    "with its 95 % interval over images. Dotted: MaskCut on raw pixels.",
    alt="Two line plots of box AP50 against the layer, trained and before training.",
    needs="masks",
)
def by_layer():
    """On the same images and one scale."""
    rows = pd.concat(
        precision(part).assign(model=model, weights=weights, layer=at + 1)
        for (model, weights, at), part in found.groupby(["model", "weights", "layer"], sort=False)
    ).query("kind == 'box' and metric == 'AP50'")
    _, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for ax, weights in zip(axes, ("trained", "untrained"), strict=True):
        interval_curves(rows[rows.weights == weights], study.colours, "layer", "", ax)
        reference_line(ap50.loc[("layer read", "none", "raw pixels"), "mean"], "raw pixels", ax)
        ax.set_title(weights, fontsize="medium")
        ax.set_ylim(0, None)
    axes[0].set_ylabel("box AP50 (%)")
    axes[0].legend(frameon=False, fontsize="small")
    return rows


# %% [markdown]
# ## Table 1 of the paper
#
# [Table 1](#tab-all-numbers) has COCO's six numbers at the layer that is read; [Figure 3](#fig-best)
# has every network at the layer that is best on the other half of the images.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "Average precision in percent at the layer that is read, the share of images with a right box "
    "(CorLoc, %) and the mean best IoU of masks (%).",
    needs="masks",
)
def all_numbers():
    """Networks, then what needs no network."""
    rows = scores[(scores.place == "layer read") & (scores.weights != "untrained")]
    wide = rows.pivot(index="model", columns=["kind", "metric"], values="mean")
    wide = wide.loc[[*study.labels, *baselines.model.unique()]].round(1)
    wide.columns = [" ".join(column) for column in wide.columns]
    own = study.at_layer(overlaps).query("weights == 'trained'").groupby("model")
    wide["CorLoc"], wide["best IoU"] = (
        100 * own[name].mean().round(3) for name in ("corloc", "best_iou")
    )
    wide.insert(0, "gate", ["failed" if name in study.gate_notes else "" for name in wide.index])
    return wide.rename_axis("system").reset_index()


# %% [markdown]
# **The paper's**, on COCO val2017 (5,000 photographs), for its own networks. For the same CRATE-S its
# Table 1 gives a box AP50 of 2.9 and its Table 2 one of 2.1; it does not say why.
#
# | patch 8 | box AP50 | AP75 | AP | mask AP50 | AP75 | AP |
# | --- | --- | --- | --- | --- | --- | --- |
# | CRATE-S supervised | 2.9 | 1.0 | 1.1 | 1.8 | 0.7 | 0.8 |
# | CRATE-B supervised | 2.9 | 1.0 | 1.3 | 2.2 | 0.7 | 1.0 |
# | ViT-S supervised | 0.1 | 0.1 | 0.0 | 0.0 | 0.0 | 0.0 |
# | ViT-B supervised | 0.8 | 0.2 | 0.4 | 0.7 | 0.5 | 0.4 |
# | ViT-S DINO | 5.0 | 2.0 | 2.4 | 4.0 | 1.3 | 1.7 |
# | ViT-B DINO | 5.1 | 2.3 | 2.5 | 4.1 | 1.3 | 1.8 |
# | *ablation:* CRATE-S (MSSA, ISTA) | 2.1 | 0.7 | 0.8 | | | |
# | CRATE-S-MLP (MSSA, MLP) | 0.2 | 0.2 | 0.2 | | | |
# | CRATE-S-MHSA (MHSA, ISTA) | 0.1 | 0.1 | 0.0 | | | |
#
# *Source: [Yu et al. 2024](../book/bibliography.md#yu2024emergence), Tables 1 and 2. Not measured by us.
# `params/coco2017.yml` holds the parameters for the same measurement on a released checkpoint.*


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Box AP50 with its 95 % interval over images, each network and its untrained twin at the layer "
    "that is best on the other half of the images. Grey: no network, and the truth on the patch grid.",
    alt="A dot plot of box AP50 with intervals, for networks, twins and three baselines.",
    needs="masks",
)
def best():
    """Trained, untrained, none."""
    rows = ap50.loc["best layer"].reset_index()
    rows["label"] = rows.model.where(rows.weights != "untrained", rows.model + ", untrained")
    rows["model"] = rows.model.where(rows.weights == "trained", "")
    _, ax = plt.subplots(figsize=(8, 0.36 * len(rows) + 1), layout="constrained")
    interval_dots(rows, study.colours, xlabel="box AP50 (%), best layer", ax=ax, digits=1)
    return rows


# %% [markdown]
# ## Along training
#
# [Figure 4](#fig-along-training) repeats the measurement on the snapshots that were kept along training,
# at the layer that is read, on the first images (Fig. 10, left).

# %% jupyter={"source_hidden": true} tags=["hide-input"]
few = Window(images, 0, min(40, len(images)))
few_true = true.subset(range(len(few)))
along = pd.DataFrame(
    [
        row | {"model": network.label, "step": step}
        for network in (study.networks if has_objects else ())
        for step, model in network.snapshots()
        for row in precision(
            detect_objects(model, few, folder, [network.layer], **cutting), few_true
        ).to_dict("records")
    ]
)


@study.figure(
    "Box AP50 of MaskCut at the layer that is read against training step, with its 95 % interval over "
    "images. Steps double from mark to mark.",
    alt="Line plot of box AP50 against the training step for each network that has snapshots.",
    needs=along,
)
def along_training():
    """Networks with snapshots."""
    rows = along.query("kind == 'box' and metric == 'AP50'")
    colours = {name: study.colours[name] for name in rows.model.unique()}
    _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    interval_curves(rows, colours, "step", "box AP50 (%)", ax)
    step_axis(sorted(rows.step.unique().tolist()), ax)
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    return rows


# %% [markdown]
# ## How our setting differs
#
# The paper cuts COCO photographs at 480 x 480 pixels with patches of 8, a grid of 60 x 60. Our networks
# were trained on smaller images of one drawn animal each, and the scenes hold several
# ([Models and data](01-models-and-data.ipynb)). Such scenes are easier than photographs: numbers on them
# are higher and cannot be compared with the paper's one by one.
#
# ## What would have disproved the claim
#
# - A CRATE whose features are cut no better than raw pixels, or no better than before training.
# - A ViT that does as well, at its own best layer too.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
