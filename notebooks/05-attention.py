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
# # What does each head look at?
#
# **The claim.** The attention of `[CLS]` in a CRATE that was trained only to classify is shown to lie
# on the object and to follow its outline, head by head, while that of a ViT trained the same way is
# scattered ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Fig. 1, 8 and 14, on selected
# images).
#
# **The test.** The first images of a split, and not the best ones. How much of a map lies on the object
# is read beside what the network's maps of *other* images give to the same place: objects tend to lie
# in the middle, and so may a map that never changes. Who else asks, and larger images, are the matter of
# [Who asks?](06-queries.ipynb).

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 120
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
n_shown: int = 24  # images in the gallery
keep: float = 0.6  # the share of the attention that a mask keeps
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from itertools import chain

import matplotlib.pyplot as plt
import pandas as pd
import torch

from crate_analysis.measures import cross_fit, interval_frame, mean_interval
from crate_analysis.plotting import group_dots, heat, layer_curves, sheet, smooth_heat
from crate_analysis.probes import cls_attention, cls_maps, map_frame, map_numbers
from crate_analysis.probes.attention import layer_state
from crate_analysis.segmentation import Scoring, attention_mask, image_specific, scores_with_rivals
from crate_analysis.study import Finding, Study
from crate_analysis.walkthrough import walkthrough, walkthrough_height

study = Study(globals(), "05-attention")

# %% [markdown]
# [Figure 1](#fig-gallery) shows the average over all heads, so that neither images nor heads are chosen.
# Everything that is measured is measured on the true grid; in JupyterLab the maps can be smoothed, which
# draws round limbs where there are only patches.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]`, averaged over heads, on the first images of the validation split. Dark is "
    "none, bright is the map's largest.",
    alt="A sheet of images, each followed by a map for each network.",
    pick={
        "first_image": study.starts(n_shown),
        "layer": study.layer_choices,
        "maps": {"on the true grid": heat, "smoothed": smooth_heat},
    },
)
def gallery(first_image=0, layer=None, maps=heat):
    """The maps' values on the true grid."""
    shown = study.indices(n_shown, first_image)
    entries = [[image] for image in study.networks[0].pixels(shown)]
    frames = []
    for network in study.networks:
        read = network.layer if layer is None else layer
        mean = cls_attention(network.model, network.inputs(shown), read).mean(1).cpu()
        for entry, own in zip(entries, mean.numpy(), strict=True):
            entry.append(maps(own, entry[0].shape[:2]))
        frame = map_frame(mean[:, None], model=network.label, layer=read + 1)
        frames.append(frame.assign(image=[shown[place] for place in frame.image], head="mean"))
    across = max(1, 9 // len(entries[0]))
    rows = [[*chain(*entries[at : at + across])] for at in range(0, len(entries), across)]
    columns = ["image", *study.labels] * min(across, len(entries))
    _, ax = plt.subplots(figsize=(10, 10 * len(rows) / len(rows[0]) + 0.6))
    sheet(rows, [name.removesuffix("-creatures") for name in columns], ax=ax)
    return pd.concat(frames)


# %% [markdown]
# ## From an image to a map
#
# [Figure 2](#fig-walk) takes the first image through the first network, after Fig. 2 of
# [Yu et al. 2024](../book/bibliography.md#yu2024emergence); all that is drawn is what the network
# computes. The image is cut into patches, each becomes a token, and `[CLS]` is put before them. Each head
# $k$ sees the tokens in a subspace of its own, $V_k = U_k^\top\mathrm{LN}(Z)$. In CRATE the same vectors
# serve as queries and keys, so the attention of `[CLS]` to a patch is the likeness of their projections,
# $\mathrm{softmax}(V_{k,\mathrm{CLS}}^\top V_k/\sqrt p)$; a ViT has separate queries and keys. Put back on
# the grid, that row is the map. Its mask belongs to [Does attention segment?](07-segmentation.ipynb).


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "From an image to attention maps and masks. Matrices: red above zero, blue below, a column a token. "
    "Bars: the softmax row of `[CLS]`, first (green) what it gives to itself, then the patches.",
    alt="An image, its patches and tokens; below, for each head, projections, attention and map.",
    pick={"image": study.starts(1)},
)
def walk(image=0):
    """The first network's maps of one image."""
    main = study.networks[0]
    model, number = main.model, main.layer + 1
    [index] = study.indices(1, image)
    inputs = main.inputs([index])
    with torch.no_grad():
        state = layer_state(model, inputs, main.layer)
        row = state.attention()[:, :, 0]
    maps = cls_maps(row[:, :, None], model.patch_grid(inputs)).cpu()
    heads, t, p = state.projections.shape[1:]
    z, patch = f"Z^{{{number}}}", model.config.patch_size
    seen, asks = rf"keys $K_k$ of $\mathrm{{LN}}({z})$", r"q_{k,\mathrm{CLS}}^{\top}\, K_k"
    if model.config.attention == "mssa":
        seen = rf"$V_k = U_k^{{\top}}\,\mathrm{{LN}}({z})$"
        asks = r"V_{k,\mathrm{CLS}}^{\top}\, V_k"
    said = {
        "patches": f"{maps[0, 0].numel()} patches of {patch} × {patch}",
        "layers": "embed, add positions" + (f",\nlayers 1 to {main.layer}" if main.layer else ""),
        "tokens": f"tokens ${z}$: a column each ({state.tokens.shape[-1]} × {t}),\n[CLS] first, wider",
        "projections": f"in each head's subspace:\n{seen}, {p} × {t}",
        "attention": "how much [CLS] resembles each token:"
        + f"\nsoftmax$\\,({asks} / \\sqrt{{p}})$",
        "map": "on the grid:\nattention map",
        "mask": f"its brightest:\n{keep:.0%} of the sum",
    }
    figure, ax = plt.subplots(figsize=(10, walkthrough_height(heads) / 10))
    figure.subplots_adjust(0, 0, 1, 1)
    drawn = [tensor[0].detach().cpu().numpy() for tensor in (state.tokens, state.projections, row)]
    walkthrough(main.pixels([index])[0], *drawn, attention_mask(maps[0], keep).numpy(), said, ax)
    return map_frame(maps, model=main.label, layer=number).assign(image=index)


# %% [markdown]
# ## Every head
#
# [Figure 3](#fig-heads) shows all heads on the first image of each class among the first images, or on
# the first images where there are no classes.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Attention of `[CLS]` in every head, on the first image of each class.",
    alt="A sheet with a row for each class: an image and the maps of all heads of each network.",
    pick={"layer": study.layer_choices},
)
def heads(layer=None):
    """At most twelve images."""
    main = study.networks[0]
    first = {}
    for index in study.indices(max(60, n_shown)):
        label = main.images[index].label
        first.setdefault(index if label is None else main.images.classes[label], index)
    shown = list(first.values())[:12]
    tiles, columns, groups, frames = [[one] for one in main.pixels(shown)], ["image"], {"": 1}, []
    for network in study.networks:
        read = network.layer if layer is None else layer
        maps = cls_attention(network.model, network.inputs(shown), read).cpu()
        for line, own in zip(tiles, maps.numpy(), strict=True):
            line += [heat(one, line[0].shape[:2]) for one in own]
        columns += [f"head {head + 1}" for head in range(maps.shape[1])]
        groups[f"{network.label}, layer {read + 1}"] = maps.shape[1]
        frame = map_frame(maps, model=network.label, layer=read + 1)
        frames.append(frame.assign(image=[shown[place] for place in frame.image]))
    names = [str(name) for name in list(first)[:12]]
    _, ax = plt.subplots(figsize=(10, 9.4 * len(tiles) / len(tiles[0]) + 0.7))
    sheet(tiles, columns, names, groups=groups, ax=ax)
    return pd.concat(frames)


# %% [markdown]
# ## The measurement
#
# How much of each head's map lies on each object, beside what the network's maps of other images give to
# the same place; and how wide each map is. Networks and their twins before training, in every layer.

# %%
shares = study.each(
    lambda network: scores_with_rivals(
        network.model,
        network.images,
        None,
        Scoring(values=("attention",)),
        rivals=["other images"],
        draws=2,
        seed=seed,
        reading=study.reading,
    ).query("not is_part"),
    untrained=True,
    needs="masks",
)
numbers = study.each(
    lambda network: map_numbers(network.model, network.images, reading=study.reading),
    untrained=True,
)

# %% [markdown]
# - *attention on the object*: the share of the map that lies on it, the mean over heads; an even map gives
#   the object's share of the pixels. Beyond that of the maps of other images it is **image-specific**.
# - *width*: the effective number of patches, $\exp$ of the entropy, as a share of all; 1 for an even map.
# - *evenness*: the effective number of patches within the objects, as a share of theirs: little where one
#   spot outshines the rest. An even map has 1, so it says something only beside the first number.
#
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
BY_IMAGE = ["model", "weights", "layer", "image"]
VALUES = ["attention", "others", "image_specific", "share"]
shapes = numbers.groupby(BY_IMAGE, sort=False)[["width", "evenness"]].mean().reset_index()
specific = on_object = pd.DataFrame(columns=[*BY_IMAGE, *VALUES])
if len(shares):
    specific = image_specific(shares, "attention")
    on_object = specific.groupby(BY_IMAGE, sort=False)[VALUES].mean().reset_index()


@study.report(
    "At layer {main.layer} of {main.depth} {main} gives the object {main[attention on the object]:.0%} "
    "of its attention, where its maps of other images give {main[attention of other images' maps].mean:.0%}: "
    "{main[image-specific attention]:.0%} is image-specific.",
    "In {other} it is {other[image-specific attention]:.0%} of {other[attention on the object].mean:.0%}; "
    "image by image {main} has {main[image-specific attention, difference]:more|less|not clearly more or less}.",
    "Each at its own best layer, the two have {main[image-specific attention, best layer].mean:.0%} and "
    "{other[image-specific attention, best layer].mean:.0%}; before training {main} has "
    "{main[image-specific attention, untrained].mean:.1%}.",
    "The maps of {main} are spread over {main[evenness].mean:.0%} of the object's patches, those of "
    "{other} over {other[evenness].mean:.0%}.",
)
def findings():
    """At the layer that is read."""
    of = {}
    for name in study.labels:
        every = on_object[on_object.model == name]
        own = study.at_layer(every).set_index("image")
        trained, twin = (own[own.weights == weights] for weights in ("trained", "untrained"))
        of[name] = trained.image_specific
        yield Finding(name, "attention on the object", trained.attention)
        yield Finding(name, "attention of other images' maps", trained.others)
        yield Finding(name, "attention of an even map", trained.share)
        yield Finding(name, "image-specific attention", trained.image_specific)
        yield Finding(name, "image-specific attention, untrained", twin.image_specific)
        best = every[every.weights == "trained"]
        best = cross_fit(best, "layer", "image_specific") if len(best) > 1 else best
        yield Finding(name, "image-specific attention, best layer", best.image_specific)
        shape = study.at_layer(shapes).query("model == @name and weights == 'trained'")
        yield Finding(name, "width", shape.width)
        yield Finding(name, "evenness", shape.evenness.dropna())
    main, *_, last = (of[name] for name in [study.labels[0], *study.labels])
    if len(of) > 1:
        name = "image-specific attention, difference"
        yield Finding(study.labels[0], name, main.sub(last).dropna())


# %% [markdown]
# Intervals are over images: they speak of these networks, not of their designs. *Best layer* is chosen on
# half of the images and scored on the other half, both ways. [Figure 4](#fig-by-layer) has all layers,
# [Table 1](#tab-by-head) each head at the layer that is read.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Numbers of the maps by layer, means over heads: the trained networks and their twins before "
    "training. Mean and one standard deviation over images.",
    alt="Line plots against the layer, a curve for each network, trained and not.",
)
def by_layer():
    """What was measured, by image."""
    panels = {"width": shapes}
    if len(on_object):
        panels = {"attention": on_object, "image_specific": on_object, "width": shapes,
                  "evenness": shapes}  # fmt: skip
    names = {"attention": "attention on the object", "image_specific": "image-specific attention"}
    rows = -(-len(panels) // 2)
    _, axes = plt.subplots(
        rows, min(2, len(panels)), figsize=(9.5, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for ax, (value, frame) in zip(axes.flat, panels.items(), strict=True):
        curves = frame.assign(value=frame[value]).dropna(subset="value")
        style = {"style": "weights", "styles": ["trained", "untrained"]}
        layer_curves(curves, study.colours, **style, ylabel=names.get(value, value), ax=ax)
    for ax in axes.flat[1:]:
        ax.legend().remove()
    return shapes.merge(on_object, on=BY_IMAGE, how="left") if len(on_object) else shapes


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Each head at the layer that is read; mean with 95 % interval over images.")
def by_head():
    """Trained networks."""
    rows = []
    own = study.at_layer(numbers[numbers.weights == "trained"])
    for (name, head), part in own.groupby(["model", "head"], sort=False):
        row = {"network": name, "head": head + 1}
        if len(specific):
            of = study.at_layer(specific[specific.weights == "trained"])
            of = (
                of[(of.model == name) & (of["head"] == head)]
                .groupby("image")
                .mean(numeric_only=True)
            )
            row["attention on the object"] = str(mean_interval(of.attention))
            row["image-specific"] = str(mean_interval(of.image_specific))
        row["width"] = str(mean_interval(part.width))
        row["[CLS] on itself"] = str(mean_interval(part["to itself"]))
        rows.append(row)
    return pd.DataFrame(rows)


# %% [markdown]
# [Figure 5](#fig-by-class) asks for which classes this holds.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Image-specific attention on the object at the layer that is read, averaged over heads, by class. "
    "Mean and 95 % interval over images; classes of a single image are left out.",
    alt="Dots with intervals for each class and network.",
    needs=["masks", "labels"],
)
def by_class():
    """In the order of the first network."""
    own = study.at_layer(on_object[on_object.weights == "trained"])
    images = study.networks[0].images
    labels = {index: images[index].label for index in own.image.unique().tolist()}
    own = own.assign(label=own.model, group=[labels[index] for index in own.image])
    own = own.dropna(subset="group").assign(group=lambda frame: frame.group.astype(int))
    own = own[own.groupby(["model", "group"]).image.transform("count") > 1]
    frame = interval_frame(own, "image_specific", ["group", "label"])
    main = frame[frame.label == study.labels[0]].set_index("group")["mean"]
    frame = frame.sort_values("group", key=lambda group: group.map(main), kind="stable")
    frame = frame.assign(group=[images.classes[label] for label in frame.group])
    _, ax = plt.subplots(figsize=(7.5, 1 + 0.34 * frame.group.nunique()), layout="constrained")
    group_dots(frame, study.colours, xlabel="image-specific attention", ax=ax)
    ax.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return frame


# %% [markdown]
# ## How our setting differs
#
# The paper's maps have 28 × 28 patches and come from networks trained on ImageNet-21k; ours are small
# networks with a coarser grid, trained once each on drawn animals
# ([Models and data](01-models-and-data.ipynb)).
#
# ## What would have disproved the claim
#
# - Image-specific attention that is not above 0, or not above that of the network before training.
# - A ViT whose maps are as image-specific *and* lie on the object as evenly.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
