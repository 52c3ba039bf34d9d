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
# # Which half of the layer makes the maps?
#
# **The claim.** With MSSA replaced by a ViT's attention, or ISTA by its MLP, the maps of `[CLS]` lose the
# object; a ViT trained by self-supervision (DINO) has them
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Table 2, Figs. 1 and 13).
#
# **The test.** The image-specific IoU of the best head of each variant, at its own best layer chosen on
# other images, beside rivals that had the same choice. One network each: intervals over images tell these
# networks apart, not their designs. Designs are compared over runs in
# [the ablation](14-ablation.ipynb).

# %% tags=["parameters"]
models: list[str] = [
    "crate-creatures",
    "crate-sth-creatures",
    "crate-mlp-creatures",
    "crate-mhsa-creatures",
    "crate-simdino-creatures",
    "vit-simdino-creatures",
    "vit-creatures",
]
dataset: str = "creatures"
n_images: int = 200
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
layer: "int or None" = -2  # of the maps that are shown; the paper's Fig. 13 has the last but one
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import cross_fit, interval_frame
from crate_analysis.plotting import heat, interval_curves, interval_dots, sheet
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import Scoring, best_heads, image_specific, scores_with_rivals
from crate_analysis.study import Finding, Study

study = Study(globals(), "13-variants")

# %% [markdown]
# ## The variants
#
# MSSA or MHSA for attention; ISTA with a ReLU, ISTA with a two-sided soft threshold (*sth*), or an MLP;
# labels, or pairs of the same animal (*simdino*). [Figure 1](#fig-all-heads) shows what every head attends to.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]` to the patches in the last layer but one, all heads, on two images of the "
    "validation split.",
    alt="A sheet with one row a network: an image and the maps of all heads, twice.",
    pick={"first_image": study.starts(2), "layer": study.layer_choices},
)
def all_heads(first_image=0, layer=None):
    """Two images in a row."""
    shown = study.indices(2, first_image)
    tiles, rows = [], []
    for network in study.networks:
        read = network.layer if layer is None else layer
        maps = cls_attention(network.model, network.inputs(shown), read).cpu().numpy()
        line = []
        for image, heads in zip(network.pixels(shown), maps, strict=True):
            line += [image, *(heat(head, image.shape[:2]) for head in heads)]
        tiles.append(line)
        rows += [(network.label, read + 1, index) for index in shown]
    width = max(map(len, tiles))
    _, ax = plt.subplots(figsize=(10, 10 * len(tiles) / width))
    sheet(tiles, [], study.labels, ax)
    return pd.DataFrame(rows, columns=["model", "layer", "image"])


# %% [markdown]
# ## The measurement

# %%
scores = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        network.train_images,
        Scoring(values=("iou",)),
        rivals=study.rivals,
        draws=2,
        seed=seed,
        reading=study.reading,
    ),
    needs="masks",
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
best = best_heads(scores.query("not is_part")) if len(scores) else scores
specific = image_specific(best) if len(scores) else scores
columns = ["model", "layer", "image", "iou", "image_specific"]
chosen = cross_fit(specific[columns], "layer", "image_specific") if len(scores) else scores

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "At its own best layer {main} has an image-specific IoU of {main[image-specific IoU].mean:.3f} and "
    "{other} of {other[image-specific IoU].mean:.3f}.",
    "Their IoU, {main[best-head IoU].mean:.3f} and {other[best-head IoU].mean:.3f}, stands beside "
    "{by[k-means masks][best-head IoU].mean:.3f} for as many k-means masks.",
    needs=scores,
)
def findings():
    """One value an image, at the cross-fitted best layer."""
    for label in study.labels:
        own = chosen[chosen.model == label]
        yield Finding(label, "image-specific IoU", own.image_specific)
        yield Finding(label, "best-head IoU", own.iou)
    for name in ("k-means masks", "random maps"):
        rows = best[(best["maps"] == name) & (best.model == study.labels[0])]
        yield Finding(name, "best-head IoU", rows.groupby("image").iou.mean())


# %% [markdown]
# [Figure 2](#fig-by-layer) has all layers, [Figure 3](#fig-at-best-layer) each network at the layer that
# is best on the other half of the images.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Image-specific IoU of the best head by layer: mean over images and its 95 % interval.",
    alt="Line plot of the image-specific IoU against the layer for each network.",
    needs=scores,
)
def by_layer():
    """Every network."""
    rows = interval_frame(specific, "image_specific", ["model", "layer"])
    _, ax = plt.subplots(figsize=(8.5, 4), layout="constrained")
    interval_curves(
        rows.assign(layer=rows.layer + 1), study.colours, "layer", "image-specific IoU", ax
    )
    ax.axhline(0, color="0.35", linestyle=":", linewidth=1)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return rows


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Image-specific IoU (left) and IoU (right) of the best head at each network's best layer, with "
    "95 % intervals over images. A network marked with an asterisk did not learn its task.",
    alt="Two dot plots with intervals for each network.",
    needs=scores,
)
def at_best_layer():
    """Both values."""
    _, axes = plt.subplots(
        1, 2, figsize=(10, 0.4 * len(study.labels) + 1), sharey=True, layout="constrained"
    )
    frames = []
    for ax, value in zip(axes, ("image_specific", "iou"), strict=True):
        rows = interval_frame(chosen, value, ["model"])
        rows = rows.assign(
            label=[f"{name} *" if name in study.gate_notes else name for name in rows.model]
        )
        interval_dots(rows, study.colours, xlabel=value.replace("_", "-"), ax=ax)
        frames.append(rows.assign(value=value))
    return pd.concat(frames)


# %% [markdown]
# ## The paper's numbers
#
# | S/8 | VOC mIoU | box AP50, COCO |
# | --- | --- | --- |
# | CRATE (MSSA, ISTA) | 23.9 | 2.1 |
# | CRATE-MLP (MSSA, MLP) | 22.0 | 0.2 |
# | CRATE-MHSA (MHSA, ISTA) | 18.4 | 0.1 |
# | ViT (MHSA, MLP) | 14.1 | 0.1 |
# | ViT, DINO | 27.0 | 5.0 |
#
# *Source: [Yu et al. 2024](../book/bibliography.md#yu2024emergence), Tables 1 and 2, Fig. 4. Not measured
# by us.*
#
# ## How our setting differs
#
# Small networks on drawn animals ([Models and data](01-models-and-data.ipynb)), one run each. Those that
# learned without labels did so by SimDINO, a simpler DINO
# ([Does attention need labels, or their absence?](19-self-supervision.ipynb)); a real self-supervised
# network is in [Would we see it?](21-positive-control.ipynb).
#
# ## What would have disproved the claim
#
# - A variant without MSSA, or without ISTA, with as large an image-specific part.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
