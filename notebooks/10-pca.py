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
# # Do the features show objects and their parts?
#
# **The claim.** In the features of a CRATE trained only to classify, the first principal component, joint
# over several images of a class, takes the background away, and the next three colour the same parts alike
# in all of them ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Figs. 3, 6 and 9).
#
# **The test.** How surely the first component tells the object's patches from the others (AUC), beside raw
# pixels, beside nearness to the middle of the image, and beside the untrained network; and how well a
# linear probe of single patches tells parts apart, beside pixels and beside the patch's place.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 150
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
layer: "int or None" = None  # from 0, or from the end when negative; None for the paper's
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import pixel_unshuffle

from crate_analysis.datasets import read_samples, stack_images
from crate_analysis.measures import cross_fit, interval_frame
from crate_analysis.plotting import interval_curves, interval_dots, reference_line, rgb_tile, sheet
from crate_analysis.probes import (
    balanced_accuracy,
    collect,
    component_auc,
    linear_probe,
    patch_labels,
    pca_rgb,
    separation_auc,
)
from crate_analysis.probes.features import patch_keys
from crate_analysis.segmentation import centre_attention
from crate_analysis.study import Finding, Study

study = Study(globals(), "10-pca")
decoded = {}


def read(network, images):
    """The images that can be read, once for all networks of one size."""
    key = images.split, images.image_size
    if key not in decoded:
        decoded[key] = read_samples(images, workers)
    return decoded[key]


def groups_of(samples):
    """Places of the images of each class that has five or more; all together where none has."""
    labels = pd.Series([sample.label for sample in samples], dtype=object)
    places = {k: torch.from_numpy(own) for k, own in labels.groupby(labels).indices.items()}
    return {k: own for k, own in places.items() if len(own) >= 5} or {0: torch.arange(len(samples))}


def names_of(samples):
    """The names of all parts."""
    pairs = [pair for s in samples for pair in zip(s.mask_names, s.part_of, strict=True)]
    return sorted({name for name, whole in pairs if whole is not None})


def by_image(values, of, value):
    """One row for each name and image."""
    wide = pd.DataFrame(values).rename_axis("image").reset_index()
    return wide.melt("image", None, of, value)


def grid_of(network, samples):
    """Rows and columns of patches."""
    return tuple(side // network.model.config.patch_size for side in samples[0].image.shape[1:])


def features_of(network, samples):
    """Every layer's patch features, (images, layers, patches, d)."""
    readers = {"features": lambda state: patch_keys(state)}
    return collect(network.model, samples, readers)["features"]


def pixels_of(network, samples):
    """The pixels of each patch, (images, patches, 3 P^2)."""
    patch = network.model.config.patch_size
    return pixel_unshuffle(stack_images(samples).float(), patch).flatten(2).mT


# %% [markdown]
# ## The measurement
#
# Features are $U_k^\top \mathrm{LN}(Z)$ of all heads, side by side; a ViT's keys. Each class has one PCA
# for all its images. An AUC of 0.5 is chance.

# %%
def first_component(network):
    """The AUC of the first component for the object, by layer and image, and of what is blind."""
    samples = read(network, network.images)
    grid, groups = grid_of(network, samples), list(groups_of(samples).values())
    names = sorted({name for sample in samples for name in sample.mask_names})
    truth = patch_labels(samples, grid, names, of="objects") >= 0
    inputs = dict(enumerate(features_of(network, samples).unbind(1)))
    if network.weights == "trained":
        inputs["raw pixels"] = pixels_of(network, samples)
    found = {name: component_auc(x, grid, truth, groups).numpy() for name, x in inputs.items()}
    middle = centre_attention(*grid).flatten().expand(len(samples), -1)
    found["the middle"] = separation_auc(middle, truth).numpy()
    return pd.DataFrame(found).rename_axis("image").reset_index().melt("image", None, "at", "auc")


auc = study.each(first_component, untrained=True, needs="masks")

# %% jupyter={"source_hidden": true} tags=["hide-input"]
if len(auc):
    known = auc.dropna(subset="auc")
    by_layer = known[~known["at"].isin(["raw pixels", "the middle"])].rename(
        columns={"at": "layer"}
    )
    by_layer = by_layer.astype({"layer": int})
    chosen = cross_fit(by_layer[["model", "weights", "layer", "image", "auc"]], "layer", "auc")
    levels = known[
        known["at"].isin(["raw pixels", "the middle"]) & (known.model == study.labels[0])
    ]
    levels = levels[levels.weights == "trained"]
else:
    by_layer, chosen, levels = auc, auc, auc

# %% [markdown]
# ### Parts
#
# For each class a linear probe of single patches learns which part a patch belongs to, on training images,
# and is scored on others. What it can do from the pixels of the patch, or from its place alone, is no
# merit of the features.

# %%
def tell_parts(network):
    """Balanced accuracy over parts, by what the probe is given of each patch."""
    train, test = read(network, network.train_images), read(network, network.images)
    labels, truth = (
        patch_labels(part, grid_of(network, test), names_of(train), of="parts")
        for part in (train, test)
    )
    inputs = part_inputs(network, train, test)
    of_train, of_test = groups_of(train), groups_of(test)
    found = {name: torch.full_like(truth, -1) for name in inputs}
    for group in of_train.keys() & of_test.keys():
        here, there = of_train[group], of_test[group]
        for name, (x, y) in inputs.items():
            found[name][there] = linear_probe(x[here], labels[here], y[there])
    return by_image(
        {name: balanced_accuracy(one, truth).numpy() for name, one in found.items()},
        "given",
        "score",
    )

# %% jupyter={"source_hidden": true} tags=["hide-input"]
def part_inputs(network, train, test):
    """What a probe may be given: features, and for the trained network pixels and the place."""
    pairs = [features_of(network, part)[:, network.layer] for part in (train, test)]
    inputs = {"features": pairs}
    if network.weights == "trained":
        inputs["pixels"] = [pixels_of(network, part) for part in (train, test)]
        n = pairs[0].shape[1]
        inputs["place"] = [torch.eye(n).expand(len(part), -1, -1) for part in (train, test)]
        inputs["features and place"] = [
            torch.cat([x, place], -1) for x, place in zip(pairs, inputs["place"], strict=True)
        ]
    return inputs


told = study.each(tell_parts, untrained=True, needs=("parts", "train"))
parts = told.dropna(subset="score") if len(told) else told

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "At its best layer, chosen on other images, the first component of {main} tells the object with an "
    "AUC of {main[AUC, best layer].mean:.3f}; raw pixels reach {by[raw pixels][AUC].mean:.3f}, nearness "
    "to the middle {by[the middle][AUC].mean:.3f}, and the same network untrained "
    "{main[AUC, best layer, untrained].mean:.3f}.",
    "{other} has {other[AUC, best layer].mean:.3f}.",
    "A linear probe tells parts from the features of {main} with a balanced accuracy of "
    "{main[parts, from features].mean:.3f}, from the patch's place alone with "
    "{by[place][parts, from place].mean:.3f}.",
    needs=auc,
)
def findings():
    """One value an image."""
    blind = {name: rows.set_index("image").auc for name, rows in levels.groupby("at")}
    for name, values in blind.items():
        yield Finding(name, "AUC", values)
    for label in study.labels:
        claim = "shared-parts" if label == study.labels[0] else ""
        own = chosen[chosen.model == label]
        trained, twin = (
            own[own.weights == weights].set_index("image").auc
            for weights in ("trained", "untrained")
        )
        yield Finding(label, "AUC, best layer", trained)
        yield Finding(label, "AUC, best layer, untrained", twin)
        yield Finding(label, "AUC beyond untrained", (trained - twin).dropna(), claim)
        highest = pd.DataFrame(blind).max(axis=1)
        yield Finding(label, "AUC beyond pixels and middle", (trained - highest).dropna(), claim)
    if len(parts):
        given = parts.set_index(["model", "weights", "given", "image"]).score.sort_index()
        for label in study.labels:
            yield Finding(label, "parts, from features", given[label, "trained", "features"])
            yield Finding(
                label, "parts, from features, untrained", given[label, "untrained", "features"]
            )
            beyond = given[label, "trained", "features"] - given[label, "trained", "place"]
            yield Finding(label, "parts, features beyond place", beyond.dropna())
        for name in ("pixels", "place"):
            yield Finding(name, f"parts, from {name}", given[study.labels[0], "trained", name])


# %% [markdown]
# Intervals are over images: they speak of these networks. *Beyond pixels and middle* is the AUC less the
# higher of the two blind ones, image by image.
#
# ## One PCA for the images of a class
#
# [Figure 1](#fig-joint) is the paper's Fig. 3 on our images: the classes whose AUC is highest, in the
# middle and lowest for the first network.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Principal components of patch features as colours, one PCA for all images of a class. White: "
    "background by the first component. Red, green, blue: the first three components of what remains.",
    alt="Rows of images of one class, each followed by a row of their coloured features.",
    pick={"layer": study.layer_choices},
)
def joint(layer=None):
    """Three classes."""
    main = study.networks[0]
    groups = groups_of(read(main, main.images))
    order = list(groups)
    if len(chosen):
        own = (
            chosen[(chosen.model == main.label) & (chosen.weights == "trained")]
            .set_index("image")
            .auc
        )
        mean = {group: own.reindex(places.numpy()).mean() for group, places in groups.items()}
        order = sorted(mean, key=mean.get, reverse=True)
    shown = list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
    tiles, names, rows = [], [], []
    for group in shown:
        places = groups[group]
        name = main.images.classes[group] if main.images.classes else ""
        samples = [read(main, main.images)[place] for place in places[:8].tolist()]
        tiles.append([sample.image.permute(1, 2, 0).numpy() for sample in samples])
        names.append(name)
        for network in study.networks:
            own_samples = [read(network, network.images)[place] for place in places.tolist()]
            at = network.layer if layer is None else layer
            features = features_of(network, own_samples)[:, at]
            rgb = pca_rgb(features, grid_of(network, own_samples))[:8]
            size = tiles[-1][0].shape[:2]
            tiles.append([rgb_tile(tile.numpy(), size) for tile in rgb])
            names.append(network.label)
            rows += [(network.label, at + 1, name, place) for place in places[:8].tolist()]
    _, ax = plt.subplots(figsize=(9, 1.04 * len(tiles)))
    sheet(tiles, rows=names, ax=ax)
    return pd.DataFrame(rows, columns=["model", "layer", "class", "image"])


# %% [markdown]
# ## Layer by layer
#
# [Figure 2](#fig-by-layers) is Fig. 6 of the paper: the first component in grey and the next three in
# colour, with the background kept. [Figure 3](#fig-curve) has the numbers.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Components of one image by layer, one PCA a layer for all images of its class: component 1 in grey, "
    "components 2 to 4 in colour.",
    alt="A row for each network and kind of components, a column for each layer.",
    pick={"image": study.starts(1)},
)
def by_layers(image=0):
    """One image."""
    tiles, names = [], []
    for network in study.networks:
        samples = read(network, network.images)
        group = next((p for p in groups_of(samples).values() if image in p.tolist()), None)
        places = [image, *(group.tolist() if group is not None else range(len(samples)))]
        own = [samples[place] for place in dict.fromkeys(places)]
        features, grid = features_of(network, own), grid_of(network, own)
        picture = own[0].image.permute(1, 2, 0).numpy()
        for what, components in (("component 1", (0, 0, 0)), ("2, 3, 4", (1, 2, 3))):
            line = [picture]
            for at in range(features.shape[1]):
                rgb = pca_rgb(features[:, at], grid, None, components, foreground=False)
                line.append(rgb_tile(rgb[0].numpy(), picture.shape[:2]))
            tiles.append(line)
            names.append(f"{network.label}\n{what}")
    columns = ["image", *(f"layer {at + 1}" for at in range(max(map(len, tiles)) - 1))]
    _, ax = plt.subplots(figsize=(9, 1.15 * len(tiles)))
    sheet(tiles, columns, names, ax=ax)
    return pd.DataFrame({"row": names})


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "AUC of the first component for the object, by layer: mean over images with 95 % intervals, trained "
    "(left) and untrained (right). Dotted: nearness to the middle, raw pixels and chance.",
    alt="Two line plots of AUC against the layer with three reference levels.",
    needs=auc,
)
def curve():
    """On one scale."""
    rows = interval_frame(by_layer, "auc", ["model", "weights", "layer"])
    rows["layer"] += 1
    _, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for ax, weights in zip(axes, ("trained", "untrained"), strict=True):
        interval_curves(rows[rows.weights == weights], study.colours, "layer", "", ax)
        for name, own in levels.groupby("at"):
            reference_line(own.auc.mean(), name, ax)
        reference_line(0.5, "chance", ax)
        ax.set_title(weights, fontsize="medium")
    axes[0].set_ylabel("AUC of component 1")
    axes[0].legend(frameon=False, fontsize="small")
    return rows


# %% [markdown]
# ## Which part is which
#
# [Figure 4](#fig-of-parts) sets what a probe makes of the features beside what it makes of the pixels and
# of the place of the patch.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Balanced accuracy of a linear probe for the parts of single patches, by what it is given, with 95 % "
    "intervals over images. Grey: no network.",
    alt="Dot plot of balanced accuracy for each network and input.",
    needs=parts,
)
def of_parts():
    """A row for each input."""
    rows = interval_frame(parts, "score", ["model", "weights", "given"])
    blind = rows.given.isin(["pixels", "place"])
    rows = rows[~blind | (rows.model == study.labels[0])]
    twin = np.where(rows.weights == "untrained", ", untrained", "")
    blind = rows.given.isin(["pixels", "place"])
    rows["label"] = np.where(blind, rows.given, rows.model + twin + ": " + rows.given)
    rows["model"] = rows.model.where(~blind, "")
    _, ax = plt.subplots(figsize=(8, 0.36 * len(rows) + 1), layout="constrained")
    interval_dots(rows, study.colours, xlabel="balanced accuracy", ax=ax)
    return rows


# %% [markdown]
# ## How our setting differs
#
# The paper shows images of ImageNet classes in networks with 784 patches and gives no numbers. Ours have
# 144 patches and drawn animals seen from the side, where place says much
# ([Models and data](01-models-and-data.ipynb)).
#
# ## What would have disproved the claim
#
# - A first component no better than that of raw pixels, than nearness to the middle, or than untrained.
# - Features from which parts are told no better than from the place of the patch.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
