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
# # Who asks?
#
# **The claim.** In MSSA a token's query is its own key: it attends to what is like it
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Sec. 2). If a CRATE's subspaces tell object
# from background, any patch of the object should find the object, not `[CLS]` alone; and the maps should
# hold on a finer grid, for larger images than those of the training.
#
# **The test.** Two patches of each image ask: the one deepest inside the object and the one deepest
# outside of it. Near patches are alike, so the rivals are a blob about the patch that asks, and the
# network's answer to the same patch of another image. For larger images, the image-specific IoU
# ([Does attention segment?](07-segmentation.ipynb)) is followed from size to size.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 60
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
n_scaled: int = 24  # images that are read at several sizes
scales: list[float] = [1.5, 2.0]  # sides, as multiples of that above
max_patches: int = 1024  # sizes with more patches than this are not read
keep: float = 0.6  # the share of the attention that a mask keeps
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import torch

from crate_analysis.datasets import batches, load_dataset, stack_images
from crate_analysis.measures import interval_frame, mean_interval
from crate_analysis.plotting import (
    frame_patch,
    heat,
    interval_curves,
    interval_dots,
    sheet,
)
from crate_analysis.probes import (
    cls_attention,
    compare_maps,
    deepest_patch,
    patch_attention,
)
from crate_analysis.segmentation import (
    Scoring,
    best_heads,
    image_specific,
    query_scores,
    scores_with_rivals,
)
from crate_analysis.study import Finding, Study
from crate_analysis.walk import Reading

study = Study(globals(), "06-queries")

# %% [markdown]
# [Figure 1](#fig-queries) asks from two patches of each image: the deepest inside the objects (red) and
# the deepest outside of them (blue), by the distance to the outline. Where an image has no masks, they
# are the patches that `[CLS]` of the first network attends to most and least.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Who asks matters: attention of `[CLS]`, of the patch framed red and of the one framed blue, "
    "averaged over heads.",
    alt="Images with two framed patches, each followed by the maps of `[CLS]` and of the two patches.",
    pick={"first_image": study.starts(5), "layer": study.layer_choices},
)
def queries(first_image=0, layer=None):
    """Which patches asked, as rows and columns of the grid."""
    shown, colours = study.indices(5, first_image), ((0.94, 0.2, 0.15), (0.15, 0.55, 0.95))
    tiles, columns, groups, rows = [], ["image"], {"": 1}, []
    for network in study.networks:
        inputs = network.inputs(shown)
        read = network.layer if layer is None else layer
        own = cls_attention(network.model, inputs, read).mean(1).cpu()
        grid = network.model.patch_grid(inputs)
        places = []
        for sample, one in zip(network.samples(shown), own, strict=True):
            masks = sample.masks.any(0)[None]
            ends = [(one == end).nonzero()[:1] for end in (one.max(), one.min())]
            if masks.any() and not masks.all():
                ends = [deepest_patch(masks, grid), deepest_patch(~masks, grid)]
            places.append(torch.cat(ends))
        positions = torch.stack(places)
        asked = patch_attention(network.model, inputs, positions, read).mean(1).cpu()
        for row, image in enumerate(network.pixels(shown)):
            for colour, place in zip(colours, positions[row].tolist(), strict=True):
                image = frame_patch(image, place, grid, colour)
            if len(tiles) <= row:
                tiles.append([image])
            size = tiles[row][0].shape[:2]
            tiles[row] += [heat(one.numpy(), size) for one in (own[row], *asked[row])]
            rows.append((network.label, read + 1, shown[row], *positions[row].flatten().tolist()))
        columns += ["[CLS]", "red", "blue"]
        groups[f"{network.label}, layer {read + 1}"] = 3
    _, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.7))
    sheet(tiles, columns, groups=groups, ax=ax)
    names = ["red row", "red column", "blue row", "blue column"]
    return pd.DataFrame(rows, columns=["model", "layer", "image", *names])


# %% [markdown]
# ## The measurement
#
# How much of its attention a patch gives to the objects, without what it gives to itself, in the networks
# and in their twins before training.

# %%
asked = study.each(
    lambda network: query_scores(network.model, network.images, network.layer, seed, study.reading),
    untrained=True,
    needs="masks",
)

# %% [markdown]
# A transformer takes images of any size: there are more patches, and the position embeddings are resized.
# Drawn animals are drawn at each size, so that nothing is blurred; photographs are resized. Each size is
# scored as [Does attention segment?](07-segmentation.ipynb) does, and its maps, summed back to the grid
# of the first size, are compared with those of the first size.

# %%
few = Reading(batch_size=4, limit=n_scaled, workers=workers)


def images_by_size(network):
    """The images at each size whose patches are not too many, the first size first."""
    patch, first = network.model.config.patch_size, image_size or network.model.config.image_size
    grids = {factor: round(factor * first / patch) for factor in sorted({1.0, *scales})}
    sizes = {factor: side * patch for factor, side in grids.items() if side**2 <= max_patches}
    return {
        factor: load_dataset(dataset, "val", size, n_scaled, seed) for factor, size in sizes.items()
    }


# %%
def maps_by_size(network):
    """What is kept of the maps, and the class; None where there is one size only."""
    versions = images_by_size(network)
    if len(versions) > 1 and 1.0 in versions:
        return compare_maps(network.model, versions[1.0], versions, network.layer, few)


compared = study.each(maps_by_size)

# %%
iou = Scoring(keep, values=("iou",))


def iou_by_size(network):
    """The best head's IoU, and the image-specific part of it."""
    found, how = [], {"layers": [network.layer], "rivals": ["other images", "patch ceiling"]}
    for factor, images in images_by_size(network).items():
        scores = scores_with_rivals(network.model, images, None, iou, draws=2, reading=few, **how)
        found.append(best_heads(scores).assign(version=factor))
    return pd.concat(found) if len(found) > 1 else None


ious = study.each(iou_by_size, needs="masks")
by_size = image_specific(ious) if len(ious) else ious

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
specific = image_specific(asked, "attention") if len(asked) else asked
largest = max([1.0, *compared.get("version", [])])
ASKS = {"inside": "a patch of the object", "outside": "a patch away from it"}


def values_of(frame, value, **where):
    """One value an image; none where nothing was measured."""
    if value not in frame:
        return pd.Series(dtype=float)
    chosen = frame[frame[list(where)].eq(list(where.values())).all(axis=1)]
    return chosen.set_index("image")[value].dropna()


@study.report(
    "A patch of the object gives the object {main[from the object]:.0%} of its attention in {main}, "
    "where the blob about it gives {by[blob][from the object].mean:.0%} and the answer to the same patch "
    "of another image {main[from the object, other images].mean:.0%}.",
    "In {other} it is {other[from the object]:.0%}, beside {other[from the object, other images].mean:.0%}; "
    "before training {main} has {main[from the object, untrained].mean:.0%}.",
    "A patch away from it gives the object {main[from outside]:.0%} in {main} and "
    "{other[from outside]:.0%} in {other}, its blob {by[blob][from outside].mean:.0%}.",
    f"At {largest:g} times the side, {{main}} keeps {{main[similarity kept, largest]:.0%}} of what tells an "
    "image's map from another's and {other} {other[similarity kept, largest]:.0%}.",
    "The image-specific IoU {main[image-specific IoU, gain]:rises|falls|does not clearly change} in {main} "
    "({main[image-specific IoU, gain]}) and {other[image-specific IoU, gain]:rises|falls|does not clearly "
    "change} in {other} ({other[image-specific IoU, gain]}).",
    "The accuracy goes from {main[accuracy].mean:.0%} to {main[accuracy, largest].mean:.0%} and from "
    "{other[accuracy].mean:.0%} to {other[accuracy, largest].mean:.0%}.",
)
def findings():
    """At the layer that is read."""
    short = {"inside": "from the object", "outside": "from outside"}
    for name in study.labels:
        trained = {"model": name, "weights": "trained"}
        for query, quantity in short.items():
            at = {**trained, "query": query}
            yield Finding(name, quantity, values_of(asked, "attention", **at, maps="own"))
            others = values_of(specific, "others", **at)
            yield Finding(name, f"{quantity}, other images", others)
        twin = {"model": name, "weights": "untrained", "query": "inside", "maps": "own"}
        yield Finding(name, "from the object, untrained", values_of(asked, "attention", **twin))
        kept = values_of(compared, "kept", **trained, version=largest)
        yield Finding(name, "similarity kept, largest", kept)
        small, large = (
            values_of(by_size, "image_specific", **trained, version=size) for size in (1.0, largest)
        )
        yield Finding(name, "image-specific IoU", small)
        yield Finding(name, "image-specific IoU, gain", (large - small).dropna())
        for label, size in (("accuracy", 1.0), ("accuracy, largest", largest)):
            yield Finding(name, label, values_of(compared, "hit", **trained, version=size))
    for query, quantity in short.items():
        blob = {"model": study.labels[0], "weights": "trained", "query": query, "maps": "blob"}
        yield Finding("blob", quantity, values_of(asked, "attention", **blob))


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs. [Figure 2](#fig-who-asks)
# has all answers beside their rivals.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention on the objects by who asks, averaged over heads; mean and 95 % interval over images. Grey: "
    "the network's answer to the same patch of another image, its twin before training, and a blob about "
    "the patch. Dotted: an even map.",
    alt="Dots with intervals for a patch of the object and one away from it, networks and rivals.",
    needs=asked,
)
def who_asks():
    """Own answers and rivals."""
    rows, main = [], study.labels[0]
    for (query, maps, name, weights), part in asked.groupby(
        ["query", "maps", "model", "weights"], sort=False
    ):
        if maps == "own":
            label = name if weights == "trained" else f"{name}, untrained"
            rows.append(
                (query, label, name if weights == "trained" else "", *mean_interval(part.attention))
            )
        elif weights == "trained" and (maps == "other images" or name == main):
            label = f"{name}, {maps}" if maps == "other images" else "blob about the patch"
            rows.append((query, label, "", *mean_interval(part.attention)))
    frame = pd.DataFrame(rows, columns=["query", "label", "model", "mean", "low", "high"])
    frame = frame.sort_values("label", kind="stable")
    _, axes = plt.subplots(
        1, 2, figsize=(10, 0.17 * len(frame) + 1.2), sharey=True, layout="constrained"
    )
    for ax, (query, title) in zip(axes, ASKS.items(), strict=True):
        interval_dots(
            frame[frame["query"] == query], study.colours, "attention on the object", ax, 2
        )
        ax.set_title(f"{title} asks", fontsize="medium")
        ax.axvline(asked.share.mean(), color="0.35", linestyle=":", linewidth=1)
    return frame


# %% [markdown]
# ## Finer maps from larger images
#
# [Figure 3](#fig-sizes) has the same images at the sizes that were read; finer is not the same as better,
# and [Figure 4](#fig-numbers-by-size) asks how much of the maps is kept, whether they still tell this
# image's object, and whether the network still knows the class.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The same images at several sizes: attention of `[CLS]`, averaged over heads, on the true grid. 1 × is "
    "the size that the first maps were read at.",
    alt="Images and their attention maps on finer and finer grids, for each network.",
    needs=compared,
)
def sizes():
    """Up to four images."""
    tiles, columns, groups, rows = [], ["image"], {"": 1}, []
    for network in study.networks:
        versions = images_by_size(network)
        groups[network.label] = len(versions)
        for factor, images in versions.items():
            shown, samples = next(batches(images, 4))
            inputs = network.model.normalize(stack_images(samples).to(device))
            maps = cls_attention(network.model, inputs, network.layer).mean(1).cpu().numpy()
            tiles = tiles or [[one.image.permute(1, 2, 0).numpy()] for one in samples]
            for line, own in zip(tiles, maps, strict=True):
                line.append(heat(own, line[0].shape[:2]))
            columns.append(f"{factor:g} ×")
            rows += [(network.label, factor, one, *maps.shape[1:]) for one in shown]
    _, ax = plt.subplots(figsize=(10, 10 * len(tiles) / len(tiles[0]) + 0.7))
    sheet(tiles, columns, groups=groups, ax=ax)
    return pd.DataFrame(rows, columns=["model", "factor", "image", "rows", "columns"])


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Larger images: what is kept of the maps, the image-specific IoU of the best head, and the accuracy. "
    "Mean and 95 % interval over images.",
    alt="Line plots against image size, a curve for each network.",
    needs=compared,
)
def numbers_by_size():
    """Each where it was measured."""
    panels = {"kept": compared, "image_specific": by_size, "hit": compared}
    names = {"kept": "similarity kept", "image_specific": "image-specific IoU", "hit": "accuracy"}
    found = []
    for value, frame in panels.items():
        rows = frame.dropna(subset=value) if value in frame else frame[:0]
        if len(rows):
            found.append(
                interval_frame(rows, value, ["model", "version"]).assign(quantity=names[value])
            )
    frame = pd.concat(found)
    size = (1 + 3 * len(found), 3.3)
    _, axes = plt.subplots(1, len(found), figsize=size, squeeze=False, layout="constrained")
    for ax, (quantity, rows) in zip(axes[0], frame.groupby("quantity", sort=False), strict=True):
        interval_curves(rows, study.colours, "version", quantity, ax)
        ax.set(xlabel="side of the image (1: as read above)", xticks=sorted(set(rows.version)))
    axes[0, 0].legend(frameon=False, fontsize="small")
    return frame


# %% [markdown]
# ## How our setting differs
#
# The networks shipped with this book are small and were trained on drawn animals of one size
# ([Models and data](01-models-and-data.ipynb)). Sizes with more than `max_patches` patches are not read,
# since attention grows with the square of their number; a network whose images have as many to begin with
# is left out of the comparison of sizes.
#
# ## What would have disproved the claim
#
# - Patches that give the object no more than a blob about them, or than their answer in another image.
# - Maps of larger images that keep nothing of what tells an image's map from another's.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
