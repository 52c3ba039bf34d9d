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
# What the other chapters measure: {glue:text}`n_models` models, trained by us on pictures drawn by
# us. This page says how each came about, so that every one can be made again.

# %% tags=["parameters"]
dataset = "creatures"
n_images = 24
seed = 0
output = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(globals(), dataset=str, n_images=int, seed=int, output=str)

# %% tags=["hide-input"]
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown, display
from matplotlib.ticker import MaxNLocator
from myst_nb import glue

from crate_analysis import build_model, list_models, load_dataset, load_model
from crate_analysis.datasets import read_samples
from crate_analysis.models import ARCHS, load_snapshots
from crate_analysis.notebook import save_figure, show_provenance, table
from crate_analysis.paths import data_folder
from crate_analysis.plotting import model_colours, overlay, sheet, tint

shipped = list_models().set_index("name")
cards = {
    name: json.loads((data_folder() / f"{name}.json").read_text(encoding="utf-8"))
    for name in shipped.index
}
glue("n_models", len(shipped), display=False)

# %% [markdown]
# ## The shipped models
#
# Each is loaded by its name, `load_model("crate-creatures")`. The accuracy is that of the shipped
# half-precision file on the {glue:text}`n_val` pictures of the split `val`, which the chapters
# measure too and which was not looked at while training; the curves of {numref}`fig-curves` are on a
# third split, `dev`. Chance is {glue:text}`chance:.0%`. Of {glue:text}`with_snapshots` weights along the
# training are shipped too; `load_snapshots` reads them one by one ({doc}`15-training`). Names that end in `-s1` and so on are
# further runs of the same system with another seed: other first weights and another order of the same
# pictures. {doc}`14-ablation` measures how far such runs are apart.
#
# Those called `dino` saw no label. They learned by self-distillation {cite:p}`caron2021dino` and have no
# classifier, so their accuracy is that of a vote of nearest neighbours, as the card says.

# %% tags=["hide-input"]
some_card = next(iter(cards.values()))
glue("n_val", some_card["validation_pictures"], display=False)
glue("chance", 1 / len(some_card["classes"]), display=False)
followed = [name for name in shipped.index if dict(load_snapshots(name))]
glue("with_snapshots", " and ".join(followed), display=False)
rows = []
for name in shipped.index:
    config = load_model(name).config
    halves = f"{config.attention.upper()}, {config.nonlinearity.replace('_', ' ').upper()}"
    seed_of = cards[name]["settings"]["seed"]
    rows.append((halves, config.dim, config.patch_size, seed_of))
shown = pd.DataFrame(rows, shipped.index, ["layer", "width", "patch", "seed"])
short = {"validation accuracy": "accuracy", "file size (MB)": "MB"}
shown = shown.join(shipped.rename(columns=short)[["parameters", "accuracy", "MB"]])
table(shown, {"accuracy": "{:.1%}", "parameters": "{:,}", "MB": "{:.2f}"})

# %% mystnb={"figure": {"caption": "Accuracy while training, on pictures of the split `dev`, which no chapter reports. One line a system, with its runs' least and greatest value.", "name": "fig-curves"}, "image": {"alt": "Line plot of accuracy against pictures seen, for each supervised system."}} tags=["hide-input"]
curves = pd.concat(
    pd.DataFrame(card["curve"]).assign(model=name, system=re.sub(r"-s\d+$", "", name))
    for name, card in cards.items()
    if "dev_accuracy" in card["curve"][0]
)
colours = model_colours(list(curves.system.unique()))
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
sns.lineplot(
    curves,
    x="samples",
    y="dev_accuracy",
    hue="system",
    palette=colours,
    marker="o",
    errorbar=("pi", 100),
    ax=ax,
)
ax.set(xlabel="training pictures seen", ylabel="accuracy on dev", ylim=(0, 1))
ax.xaxis.set_major_locator(MaxNLocator(5))
ax.xaxis.set_major_formatter("{x:,.0f}")
ax.spines[["top", "right"]].set_visible(False)
sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), frameon=False, title=None)
save_figure(figure, curves, output, "fig-curves")

# %% [markdown]
# The supervised models were trained by the same recipe, the same pictures and the same number of steps;
# only the architecture differs, and the seed. It is the recipe of {cite:t}`yu2024emergence` scaled
# down: supervised classification with a cosine schedule, weight decay and random flips, but with AdamW
# {cite:p}`loshchilov2019adamw` at a high rate in place of Lion {cite:p}`chen2023lion`, because five
# epochs leave no time for small steps. The first run of each system was computed in single precision,
# the others with the products in bfloat16, which takes less than half the time here.
#
# The table has the accuracy on `dev` of short runs (one epoch, half the width) with other learning
# rates. It was measured once, and is shipped as `data/learning-rates.csv`; no chapter reports that
# split. The best are {glue:text}`best_rates`. All models above were trained at the one rate that their
# commands give, so that a difference between them is none of tuning; where another rate is better, the
# system was held back a little.

# %% tags=["hide-input"]
search = pd.read_csv(data_folder() / "learning-rates.csv")
search["system"] = search.run.str.rsplit("-", n=1).str[0]
wide = search.pivot_table(index="system", columns="learning_rate", values="dev_accuracy")
best = wide.idxmax(axis=1)
told = (f"{', '.join(part.index)} at {rate:g}" for rate, part in best.groupby(best))
glue("best_rates", "; ".join(told), display=False)
wide.columns = [f"{rate:g}" for rate in wide.columns]
table(wide, dict.fromkeys(wide.columns, "{:.1%}"))

# %% [markdown]
# The commands follow; with `--threads 1`, as here, they give the same weights again, bit for bit, on the
# same machine; elsewhere sums are rounded otherwise, and the weights end up a little different. Under
# `torchrun` they run on several processes or GPUs, with the same result up to the order of summation.

# %% tags=["hide-input", "hide-output"]
commands = [
    card["command"].replace(" && ", "\n").replace(" --", " \\\n    --") for card in cards.values()
]
display(Markdown("```sh\n" + "\n\n".join(commands) + "\n```"))

# %% [markdown]
# ## Creatures
#
# The pictures are drawn, so their truth is exact: an animal's mask and those of its body, head, legs,
# ears and tail hold just the pixels that it covers. Twelve species share five body plans, six coats
# and four palettes in such a way that neither shape, nor pattern, nor colour alone tells them apart.
# The background is drawn from random numbers of its own and says nothing about the species; a test
# of the library trains a classifier on pictures without their animal and sees it stay at chance.
# Picture $i$ of a split depends on the seed, the split and $i$ alone, and can be drawn at any size.
# {numref}`fig-pictures` shows the first of a split, {numref}`fig-truth` the truth of some.

# %% tags=["hide-input"]
pictures = load_dataset(dataset, "val", 144, n_images, seed)
samples = read_samples(pictures)
images = [sample.image.permute(1, 2, 0).numpy() for sample in samples]


def told(samples):
    """Which pictures these are, and how many pixels each of their masks has."""
    rows = [
        (sample.path, name, int(mask.sum()))
        for sample in samples
        for name, mask in zip(sample.mask_names, sample.masks, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "mask", "pixels"])


# %% mystnb={"figure": {"caption": "The first pictures of the validation split, unselected.", "name": "fig-pictures"}, "image": {"alt": "A sheet of pictures of drawn animals before varied backgrounds."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(9, 4.6))
per_row = 8
sheet([images[row : row + per_row] for row in range(0, len(images), per_row)], ax=ax)
save_figure(figure, told(samples), output, "fig-pictures")

# %% tags=["hide-input"]
six, truths = images[:6], samples[:6]
nothing = np.zeros(six[0].shape[:2], bool)
lines = [six, [overlay(i, s.masks[0].numpy()) for i, s in zip(six, truths, strict=True)]]
for part in ("body", "head", "legs", "ears", "tail"):
    line = []
    for image, sample in zip(six, truths, strict=True):
        seen = part in sample.mask_names
        mask = sample.masks[sample.mask_names.index(part)].numpy() if seen else nothing
        line.append(overlay(image, mask))
    lines.append(line)

# %% mystnb={"figure": {"caption": "Six of them with the masks of the animal and of its parts.", "name": "fig-truth"}, "image": {"alt": "A sheet: pictures of animals, and below each the mask of the animal and of five parts."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8, 9))
names = [pictures.classes[sample.label] for sample in truths]
sheet(lines, names, ["picture", "animal", "body", "head", "legs", "ears", "tail"], ax=ax)
save_figure(figure, told(truths), output, "fig-truth")

# %% [markdown]
# `creatures-scenes` puts one to three animals into a picture, one before the other, with a mask for
# what can be seen of each ({numref}`fig-scenes`).

# %% mystnb={"figure": {"caption": "Scenes and the masks of their animals, each in a colour of its own.", "name": "fig-scenes"}, "image": {"alt": "Two rows of scenes with several animals, the second row with the animals tinted."}} tags=["hide-input"]
scene_pictures = load_dataset("creatures-scenes", "val", 192, 6, seed)
scenes = read_samples(scene_pictures)
plain = [scene.image.permute(1, 2, 0).numpy() for scene in scenes]
tinted = [tint(one, scene.masks.numpy()) for one, scene in zip(plain, scenes, strict=True)]
figure, ax = plt.subplots(figsize=(9, 3.2))
sheet([plain, tinted], rows=["scene", "animals"], ax=ax)
save_figure(figure, told(scenes), output, "fig-scenes")

# %% [markdown]
# ## Architectures
#
# Every architecture that `build_model` and `load_model` know by name, with the parameters that it
# comes to. {cite:t}`yu2024emergence` give, with 21,842 classes, 5.74 M, 14.12 M and 38.83 M for
# CRATE-T, -S and -B. Their 102.61 M for ViT-B comes out with 21,843 classes; their 10.36 M for ViT-T
# does not follow from the usual width of 192 with 3 heads.

# %% tags=["hide-input"]
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
table(pd.DataFrame(rows).set_index("name"), {"parameters (M)": "{:.2f}"})

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
data = [pictures, scene_pictures]
show_provenance("01-models-and-data", parameters, list(shipped.index), data)
