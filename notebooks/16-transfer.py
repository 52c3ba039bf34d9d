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
# # Do the features serve another task?
#
# **The claim.** Fine-tuned on other data sets, a CRATE's features transfer, better the larger it is, to
# accuracies a little below those of a ViT
# ([Yu et al. 2024](../book/bibliography.md#yu2024emergence), Table 3).
#
# **The test.** Accuracy on species that no network saw: of a linear probe of frozen features beside raw
# pixels and the same network untrained, and of fine-tuning beside the same training from random weights.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures-exotic"
n_images: int = 300  # to measure on
sizes: list[int] = [50, 150, 400]  # images to learn from
n_dev: int = 100  # images that the probe's regularisation is chosen on
image_size: "int or None" = None  # pixels a side; None for what each network was trained at
epochs: int = 3
batch_size: int = 16
learning_rate: float = 1e-3
weight_decay: float = 0.01
precision: str = "fp32"  # or bf16, where the machine computes with it
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from crate_analysis.measures import interval_frame
from crate_analysis.plotting import interval_curves, interval_dots, sheet
from crate_analysis.study import Finding, Study
from crate_analysis.training.recipe import SupervisedRecipe
from crate_analysis.training.transfer import (
    accuracies,
    architecture_of,
    classifier_hits,
    fine_tune,
    load_splits,
    probe_hits,
)

study = Study(globals(), "16-transfer")
cache, runs = (Path(output).expanduser() / name for name in ("images", "transfer"))


def splits_of(network):
    """The images to learn from, to choose on and to measure on, at the network's size."""
    size = study.image_size or network.model.config.image_size
    return load_splits(dataset, size, max(sizes), n_dev, n_images, cache, seed)


def recipe(network, splits, start):
    """The training of a network with a new classifier, from its weights or from random ones."""
    arch, overrides = architecture_of(network.model.config, len(splits.val.data.classes))
    settings = {"epochs": epochs, "learning_rate": learning_rate, "weight_decay": weight_decay}
    count = min(max(sizes), len(splits.train.indices))
    return SupervisedRecipe(
        arch,
        overrides,
        dataset,
        n_train=count,
        n_val=min(50, n_images),
        monitor="val" if dataset.startswith("folder:") else "dev",
        batch_size=min(batch_size, count),
        warmup=0.1,
        precision=precision,
        seed=seed,
        data_seed=seed,
        start=start,
        **settings,
    )


# %% [markdown]
# ## The measurement
#
# A *linear probe* is one linear classifier (multinomial logistic regression) of what a frozen network
# gives for an image: its `[CLS]` token after the last layer, or the mean over its patches. How strongly
# it is regularised is chosen on other images. *k-NN* trains nothing: the nearest images vote. Both also
# read raw pixels and the same networks with random weights. Fine-tuning trains all weights with a new
# classifier; its runs are kept in `transfer/`, and a stopped one resumes.

# %%
def probe(network):
    """Which images each probe gets right."""
    splits = splits_of(network)
    counts = sorted({min(size, len(splits.train.indices)) for size in sizes})
    return probe_hits({network.label: network.model}, splits, counts, seed)


def tune(network):
    """Which images the fine-tuned network gets right, and one from random weights."""
    splits = splits_of(network)
    spec = study.models[study.labels.index(network.label)]
    ways = {"fine-tuned": spec, "from random weights": ""}
    found = {
        way: fine_tune(recipe(network, splits, start), runs, cache) for way, start in ways.items()
    }
    hits = {
        way: classifier_hits(model, splits.val).double().numpy() for way, model in found.items()
    }
    return pd.DataFrame(hits).rename_axis("image").reset_index().melt("image", None, "way", "hit")

# %% jupyter={"source_hidden": true} tags=["hide-input"]
has_classes = study.has("labels") and study.has("train")
hits = pd.concat(
    [probe(network) for network in study.networks] if has_classes else [pd.DataFrame()]
)
if len(hits):
    source = ["model", "weights", "features", "reader", "n_train", "image"]
    hits = hits.drop_duplicates(source, ignore_index=True)
tuned = study.each(tune, needs=("labels", "train"))

# %% [markdown]
# ## What we find


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.report(
    "A linear probe of the frozen `[CLS]` of {main} names {main[probe of cls].mean:.0%} of the images, "
    "raw pixels name {by[pixels][probe of pixels].mean:.0%} and the same network untrained "
    "{main[probe of cls, untrained].mean:.0%}.",
    "Of {other} it names {other[probe of cls].mean:.0%}; image by image, {main} is "
    "{main[probe of cls, difference]:ahead|behind|neither ahead nor behind} "
    "({main[probe of cls, difference]}).",
    "Fine-tuned, {main} comes to {main[fine-tuned].mean:.0%} and {other} to "
    "{other[fine-tuned].mean:.0%}; from random weights to {main[from random weights].mean:.0%} and "
    "{other[from random weights].mean:.0%}.",
    needs=hits,
)
def findings():
    """At the most images to learn from; one value an image."""
    most = hits[(hits.n_train == hits.n_train.max()) & (hits.reader == "linear")]
    by = most.set_index(["model", "weights", "features", "image"]).hit.astype(float).sort_index()
    pixels = by["pixels", "none", "pixels"]
    yield Finding("pixels", "probe of pixels", pixels)
    for label in study.labels:
        claim = "transfer" if label == study.labels[0] else ""
        for features in ("cls", "patches"):
            yield Finding(label, f"probe of {features}", by[label, "trained", features])
        yield Finding(label, "probe of cls, untrained", by[label, "untrained", "cls"])
        ahead = (by[label, "trained", "cls"] - pixels).dropna()
        yield Finding(label, "probe of cls, beyond raw pixels", ahead, claim)
        own = tuned[tuned.model == label].pivot(index="image", columns="way", values="hit")
        for way in own:
            yield Finding(label, way, own[way])
        gain = own["fine-tuned"] - own["from random weights"]
        yield Finding(label, "fine-tuned beyond random weights", gain, claim)
    main, other = study.labels[0], study.labels[-1]
    if main != other:
        difference = (by[main, "trained", "cls"] - by[other, "trained", "cls"]).dropna()
        yield Finding(main, "probe of cls, difference", difference)


# %% [markdown]
# Intervals are over images: they speak of these networks. A short training shows how much sooner a
# trained network learns, not where both would end. A fine-tuned network that lies below its own probe was
# not trained to its end; longer training is one parameter away (`epochs`).
#
# ## What is to be told apart
#
# [Figure 1](#fig-classes) has an image of each class.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "An image of each class of the data set that features are transferred to.",
    alt="A sheet with an image of each class.",
    needs=hits,
)
def classes():
    """The first of each."""
    splits = splits_of(study.networks[0])
    labels = splits.train.labels.tolist()
    chosen = [splits.train.indices[labels.index(k)] for k in sorted(set(labels))[:12]]
    images, shown = splits.train.data.batch(chosen)
    names = [splits.train.data.classes[label] for label in shown]
    tiles = [image.permute(1, 2, 0).numpy() for image in images]
    half = -(-len(tiles) // 2)
    _, axes = plt.subplots(2, 1, figsize=(9, 3.6), layout="constrained")
    for ax, line in zip(axes, (slice(0, half), slice(half, None)), strict=True):
        ax.set_axis_off()
        if tiles[line]:
            ax.set_axis_on()
            sheet([tiles[line]], names[line], ax=ax)
    return pd.DataFrame({"class": names, "index": chosen})


# %% [markdown]
# ## Frozen features
#
# [Figure 2](#fig-probes) has all probes by the number of images that they learned from: what lies above
# raw pixels and above the untrained network is what training elsewhere is worth.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Accuracy on other images against the number of images that were learned from, with 95 % intervals "
    "over images: linear probe (top) and k-NN (bottom), of `[CLS]` (left) and of the mean over patches "
    "(right). Dashed: the same networks with random weights. Grey: raw pixels. Dotted: chance.",
    alt="Four line plots of accuracy against the number of images, one for each probe and feature.",
    needs=hits,
)
def probes():
    """Readers down, features across."""
    rows = accuracies(hits)
    counts = sorted(rows.n_train.unique())
    solid = {**study.colours, "pixels": (0.45, 0.45, 0.45)}
    _, axes = plt.subplots(2, 2, figsize=(9, 6.2), sharex=True, sharey=True, layout="constrained")
    for line, reader in zip(axes, ("linear", "k-NN"), strict=True):
        for ax, features in zip(line, ("cls", "patches"), strict=True):
            part = rows[(rows.reader == reader) & rows.features.isin([features, "pixels"])]
            interval_curves(part[part.weights == "untrained"], study.colours, "n_train", "", ax)
            for curve in ax.lines:
                curve.set(linestyle="--", label=f"{curve.get_label()}, untrained")
            interval_curves(part[part.weights != "untrained"], solid, "n_train", "", ax)
            n_classes = len(splits_of(study.networks[0]).val.data.classes)
            ax.axhline(1 / n_classes, color="0.35", linestyle=":", linewidth=1)
            ax.set(xlabel="", title=f"{reader}, {features}", ylim=(0, 1), xscale="log")
            ax.set_xticks(counts, counts)
            ax.minorticks_off()
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_xlabel("images learned from")
    handles = axes[0, 0].get_legend_handles_labels()
    plt.gcf().legend(*handles, loc="outside lower center", ncols=3, frameon=False)
    return rows


# %% [markdown]
# ## Fine-tuning
#
# [Figure 3](#fig-tuning) sets fine-tuning beside the same training from random weights.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Accuracy on other images after learning from the same number of images, with 95 % intervals over "
    "images.",
    alt="Dot plot of accuracy for each network, fine-tuned and trained from random weights.",
    needs=tuned,
)
def tuning():
    """A row for each network and way."""
    rows = interval_frame(tuned, "hit", ["model", "way"])
    rows["label"] = rows.model + ", " + rows.way
    _, ax = plt.subplots(figsize=(7.5, 0.4 * len(rows) + 0.8), layout="constrained")
    interval_dots(rows, study.colours, xlabel="accuracy", ax=ax)
    return rows


# %% [markdown]
# **The paper's** top-1 accuracies after fine-tuning (in %), for networks trained on ImageNet-21k:
#
# | | ImageNet-1K | CIFAR10 | CIFAR100 | Flowers-102 | Pets |
# | --- | --- | --- | --- | --- | --- |
# | CRATE-T | 62.7 | 94.1 | 76.7 | 82.2 | 77.0 |
# | CRATE-S | 74.2 | 97.2 | 84.1 | 92.2 | 86.4 |
# | CRATE-B | 79.5 | 98.1 | 87.9 | 96.7 | 90.7 |
# | ViT-T | 71.8 | 97.2 | 84.4 | 92.1 | 86.2 |
# | ViT-B | 85.8 | 98.9 | 90.1 | 99.5 | 91.8 |
#
# *Source: [Yu et al. 2024](../book/bibliography.md#yu2024emergence), Table 3. Not measured by us. To
# measure the like, sort a data set's images into `train/CLASS` and `val/CLASS`, and run this chapter with
# `-p dataset folder:ROOT` on a released checkpoint.*
#
# ## How our setting differs
#
# The paper goes from photographs to five other sets of photographs, with four sizes of network, and
# reports fine-tuning alone. Ours goes from drawn species to other drawn species, of other build and
# colours ([Models and data](01-models-and-data.ipynb)), with few images. It has one target and one size:
# no photographs come with the book, and networks of other sizes were trained too briefly to compare.
#
# ## What would have disproved the claim
#
# - Frozen features from which classes are read no better than from raw pixels, or untrained.
# - A fine-tuned network that is no better than one from random weights.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
