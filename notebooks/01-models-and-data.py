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
# # Models and data
#
# What the other chapters measure: networks trained by us on images drawn by us. This page says how each
# came about, so that every one can be made again.

# %% tags=["parameters"]
models: list[str] = ["crate-creatures", "vit-creatures"]
dataset: str = "creatures"
n_images: int = 24
image_size: "int or None" = 144  # pixels a side
device: str = "cpu"
workers: int = 0  # processes that read images; 0 for none but this one
seed: int = 0
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from crate_analysis import build_model, list_models, load_dataset
from crate_analysis.models import ARCHS
from crate_analysis.paths import data_folder
from crate_analysis.plotting import model_colours, overlay, sheet, tint
from crate_analysis.study import Study

study = Study(globals(), "01-models-and-data")
shipped = list_models()
cards = {
    name: json.loads((data_folder() / f"{name}.json").read_text(encoding="utf-8"))
    for name in shipped.name
}

# %% [markdown]
# ## The shipped networks
#
# Each is loaded by its name, `load_model("crate-creatures")`. [Table 1](#tab-networks) has its accuracy
# on the split `val`, which the chapters measure too and which was not looked at while training; curves are
# on a third split, `dev`. Names that end in `-s1` and so on are further runs of the same system with
# another seed ([the ablation](14-ablation.ipynb)). Those called `simdino` saw no label: their accuracy is that
# of a vote of nearest neighbours. The *gate* says whether a network learned its task: its accuracy has to
# exceed that of a vote of neighbours among raw pixels, or what its card declares. From one that failed, no
# chapter draws a conclusion.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table(
    "The shipped networks.",
    formats={"accuracy": "{:.1%}", "parameters": "{:,}", "MB": "{:.2f}"},
)
def networks():
    """From their cards."""
    rows = shipped.rename(columns={"validation accuracy": "accuracy", "file size (MB)": "MB"})
    rows["trained on"] = rows["training data"]
    return rows[["name", "trained on", "parameters", "accuracy", "gate", "MB"]]


# %% [markdown]
# ### Along training
#
# [Figure 1](#fig-curves) shows the supervised networks. All were trained by the same recipe, on the same
# images and for the same number of steps; only the architecture and the seed differ. It is the recipe of
# [Yu et al. 2024](../book/bibliography.md#yu2024emergence) scaled down, with AdamW at a high rate in place
# of Lion, because a few epochs leave no time for small steps.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Accuracy while training on images of the split `dev`, which no chapter reports. One line a system, "
    "with its runs' least and greatest value.",
    alt="Line plot of accuracy against images seen, for each supervised system.",
)
def curves():
    """From the cards."""
    rows = pd.concat(
        pd.DataFrame(card["curve"]).assign(model=name, system=re.sub(r"-s\d+$", "", name))
        for name, card in cards.items()
        if card.get("curve") and "dev_accuracy" in card["curve"][0]
    )
    colours = model_colours(list(rows.system.unique()))
    _, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
    for system, own in rows.groupby("system", sort=False):
        ends = own.groupby("samples").dev_accuracy.agg(["mean", "min", "max"])
        ax.fill_between(ends.index, ends["min"], ends["max"], color=colours[system], alpha=0.2)
        ax.plot(ends.index, ends["mean"], "o-", markersize=3, color=colours[system], label=system)
    ax.set(xlabel="training images seen", ylabel="accuracy on dev", ylim=(0, 1))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
    return rows


# %% [markdown]
# [Table 2](#tab-rates) has the accuracy on `dev` of short runs (one epoch, half the width) with other
# learning rates. All networks of the table above were trained at the one rate that their commands give;
# where another rate is better, the system was held back a little.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Accuracy on `dev` after one epoch, by learning rate; measured once and shipped.")
def rates():
    """As shipped in `data/learning-rates.csv`."""
    search = pd.read_csv(data_folder() / "learning-rates.csv")
    search["system"] = search.run.str.rsplit("-", n=1).str[0]
    wide = search.pivot_table(index="system", columns="learning_rate", values="dev_accuracy")
    wide.columns = [f"{rate:g}" for rate in wide.columns]
    return wide.map("{:.1%}".format).reset_index()


# %% [markdown]
# The commands follow. With `--threads 1` they give the same weights again, bit for bit, on the same
# machine; elsewhere sums are rounded otherwise. Under `torchrun` they run on several processes or GPUs.

# %% jupyter={"source_hidden": true} tags=["hide-input", "hide-output"]
commands = [
    card["command"].replace(" && ", "\n").replace(" --", " \\\n    --") for card in cards.values()
]
display(Markdown("```sh\n" + "\n\n".join(commands) + "\n```"))

# %% [markdown]
# ## Creatures
#
# The images are drawn, so their truth is exact: an animal's mask and those of its parts hold just the
# pixels that it covers. In `creatures` twelve species share body plans, coats and palettes in such a way
# that neither shape, nor pattern, nor colour alone tells them apart. The background is drawn from random
# numbers of its own and says nothing about the species; a test of the library trains a classifier on
# images without their animal and sees it stay at chance. Image $i$ of a split depends on the seed, the
# split and $i$ alone, and can be drawn at any size. [Figure 2](#fig-images) shows the first of a split,
# [Figure 3](#fig-truth) the truth of some.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The first images of the validation split, unselected.",
    alt="A sheet of images of drawn animals before varied backgrounds.",
)
def images():
    """Eight in a row."""
    shown = study.indices(min(24, n_images))
    tiles = study.networks[0].pixels(shown)
    _, ax = plt.subplots(figsize=(9, 1.2 * -(-len(tiles) // 8)))
    sheet([tiles[row : row + 8] for row in range(0, len(tiles), 8)], ax=ax)
    return pd.DataFrame({"image": shown})


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Six of them with the masks of the object and of its parts.",
    alt="A sheet: images of animals, and below each the mask of the animal and of each part.",
    needs="masks",
)
def truth():
    """A row for each name."""
    shown = study.indices(6)
    samples, pixels = study.networks[0].samples(shown), study.networks[0].pixels(shown)
    names = list(dict.fromkeys(name for sample in samples for name in sample.mask_names))[:8]
    lines, rows = [pixels], []
    for name in names:
        line = []
        for index, image, sample in zip(shown, pixels, samples, strict=True):
            own = [m for m, n in zip(sample.masks, sample.mask_names, strict=True) if n == name]
            mask = torch.stack(own).any(0).numpy() if own else np.zeros(image.shape[:2], bool)
            line.append(overlay(image, mask))
            rows.append((index, name, int(mask.sum())))
        lines.append(line)
    _, ax = plt.subplots(figsize=(8, 1.3 * len(lines)))
    sheet(lines, [], ["image", *names], ax=ax)
    return pd.DataFrame(rows, columns=["image", "mask", "pixels"])


# %% [markdown]
# `creatures-scenes` puts one to three animals into an image, one before the other, with a mask for what
# can be seen of each; `creatures-exotic` has other species. `creatures-parts` and `creatures-coats` are the
# *same images* of large animals on one body plan, with two labels: which ears, legs, tail and muzzle, or
# which coat ([What the labels ask for](17-labels.ipynb)). [Figure 4](#fig-others) shows them.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The other data sets: scenes with each animal in a colour of its own, exotic animals, and the images "
    "of `creatures-parts` and `creatures-coats`.",
    alt="Rows of images: scenes, scenes tinted, exotic animals, large animals on one plan.",
)
def others():
    """Six images each."""

    def drawn(name):
        return [load_dataset(name, "val", 144, 6, seed)[index] for index in range(6)]

    rows = {
        name: drawn(name) for name in ("creatures-scenes", "creatures-exotic", "creatures-parts")
    }
    plain = {name: [s.image.permute(1, 2, 0).numpy() for s in own] for name, own in rows.items()}
    scenes = rows["creatures-scenes"]
    tinted = [
        tint(image, sample.masks.numpy())
        for image, sample in zip(plain["creatures-scenes"], scenes, strict=True)
    ]
    lines = [plain["creatures-scenes"], tinted, plain["creatures-exotic"], plain["creatures-parts"]]
    names = ["scenes", "their animals", "exotic", "parts, coats"]
    _, ax = plt.subplots(figsize=(9, 6))
    sheet(lines, rows=names, ax=ax)
    return pd.DataFrame({"row": names})


# %% [markdown]
# ## Architectures
#
# [Table 3](#tab-architectures) has every architecture that `build_model` and `load_model` know by name.
# [Yu et al. 2024](../book/bibliography.md#yu2024emergence) give, with 21,842 classes, 5.74 M, 14.12 M and
# 38.83 M for CRATE-T, -S and -B. Their 102.61 M for ViT-B comes out with 21,843 classes; their 10.36 M for
# ViT-T does not follow from the usual width of 192 with 3 heads.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.table("Architectures and their parameters.", formats={"parameters (M)": "{:.2f}"})
def architectures():
    """Counted, not typed."""
    rows = []
    for name, config in ARCHS.items():
        with torch.device("meta"):
            count = sum(p.numel() for p in build_model(name).parameters())
        rows.append(
            {
                "name": name,
                "parameters (M)": count / 1e6,
                "width": config.dim,
                "layers": config.depth,
                "heads": config.heads,
                "classes": config.num_classes,
            }
        )
    return pd.DataFrame(rows)


# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
