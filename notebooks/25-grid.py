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
# # What holds elsewhere?
#
# A chapter measures a few networks on one set of pictures. Whether its finding holds for other weights
# and other pictures is a question for a *grid*: each of some chapters is run with each model, on each
# data set, with each seed, and this page puts the results side by side.
#
# **What is here.** {glue:text}`n_done` of {glue:text}`n_cells` runs of {glue:text}`notebooks`, with
# {glue:text}`models`, on {glue:text}`datasets`.
#
# **What we find.** {glue:text}`n_shared` quantities were measured for both {glue:text}`main` and
# {glue:text}`other` in {glue:text}`n_settings` settings (a data set with a seed).
# {glue:text}`n_agree` of them have the same order of the two in every setting, and
# {glue:text}`n_clear` have it with intervals that nowhere overlap. {glue:text}`turning`
#
# **How to read it.** The intervals are each chapter's own, 95 %, over pictures. Settings share their
# networks, so that agreement between them says nothing about other trainings
# (but see the chapter on the ablation).

# %% tags=["parameters"]
results: str = "../results/grid"
links: str = ""  # where the grid's folder lies, as seen from this page; empty for no links
output: str = "output"

# %% tags=["hide-input"]
from crate_analysis.notebook import check_parameters

parameters = check_parameters(globals(), results=str, links=str, output=str)

# %% tags=["hide-input"]
import json
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from myst_nb import glue

from crate_analysis.notebook import RESULTS, save_figure, show_provenance, table
from crate_analysis.plotting import interval_dots, model_colours
from crate_analysis.text import escape

folder = Path(results)
if not (folder / "cells.csv").exists():
    raise FileNotFoundError(f"{folder} holds no grid: make one with `make grid GRID=FILE`")
cells = pd.read_csv(folder / "cells.csv")
done = cells[cells.state == "done"]
try:
    found = pd.read_csv(folder / "results.csv")
except pd.errors.EmptyDataError:  # no run is done, or none has headline numbers
    found = pd.DataFrame(columns=["notebook", "models", "dataset", "seed", *RESULTS])
SETTING = ["dataset", "seed"]
seeds = cells.seed.nunique()
found["setting"] = found.dataset + (", seed " + found.seed.astype(str) if seeds > 1 else "")
settings = list(found.setting.unique())
named = {label for labels in cells.labels for label in json.loads(labels)}
measured = [name for name in found.model.unique() if name in named]
colours = model_colours(measured)
glue("n_cells", len(cells), display=False)
glue("n_done", len(done), display=False)
for name, column in (("notebooks", "notebook"), ("models", "models"), ("datasets", "dataset")):
    glue(name, ", ".join(cells[column].unique()), display=False)

# %% [markdown]
# ## The order of two models
#
# {numref}`fig-grid-order` compares the first model of the grid with the last, quantity by quantity and
# setting by setting. A cell's number is the difference of the two means; its colour is that difference
# in units of the two intervals' half-widths together, so that beyond one unit, marked bold, the
# intervals do not overlap. A row of one colour is a finding that holds in every setting.

# %% tags=["hide-input"]
main, other = (measured[0], measured[-1]) if len(measured) > 1 else (None, None)
keys = ["notebook", "quantity", "setting"]
pair = {
    name: found[found.model == name].drop_duplicates(keys).set_index(keys)
    for name in (main, other)
    if name
}
order = pd.DataFrame(columns=["difference", "units"])
if pair:
    first, last = pair[main].align(pair[other], join="inner")
    widths = (first.high - first.low + last.high - last.low) / 2
    difference = first["mean"] - last["mean"]
    units = (difference / widths).where(widths.ne(0), np.sign(difference) * np.inf).fillna(0)
    order = pd.DataFrame({"difference": difference, "units": units})
shown = {name: order[name].unstack("setting") for name in order} if len(order) else {}
if shown:
    whole = shown["units"].notna().all(axis=1)
    signs = np.sign(shown["difference"][whole])
    agree = signs.abs().eq(1).all(axis=1) & signs.eq(signs.iloc[:, 0], axis=0).all(axis=1)
    clear = agree & shown["units"][whole].abs().gt(1).all(axis=1)
    turned = [quantity for _, quantity in agree.index[~agree]]
    told = {
        "main": main,
        "other": other,
        "n_shared": int(whole.sum()),
        "n_settings": shown["units"].shape[1],
        "n_agree": int(agree.sum()),
        "n_clear": int(clear.sum()),
        "turning": f"Not so: {', '.join(turned)}." if turned else "None turns.",
    }
    for name, value in told.items():
        glue(name, value, display=False)
else:
    display(Markdown("Fewer than two models with results are here: there is no order to compare."))

# %% mystnb={"figure": {"caption": "The first model less the last, for each quantity (rows) in each setting (columns): the difference of means, coloured by its size in units of both intervals' half-widths. Bold where the intervals do not overlap. Blue: the first is higher, red: the last.", "name": "fig-grid-order"}, "image": {"alt": "A table of differences between two models, quantities in rows and settings in columns, coloured by size and sign."}} tags=["hide-input"]
if shown:
    height, width = shown["units"].shape
    figure, ax = plt.subplots(figsize=(3.6 + 1.4 * width, 0.9 + 0.3 * height))
    limits = {"vmin": -3, "vmax": 3, "cmap": "RdBu", "cbar_kws": {"label": "units of intervals"}}
    numbers = shown["difference"].map("{:.3g}".format)
    sns.heatmap(shown["units"].clip(-3, 3), annot=numbers, fmt="", linewidths=1, ax=ax, **limits)
    for text, unit in zip(ax.texts, shown["units"].stack().dropna(), strict=True):
        text.set_fontweight("bold" if abs(unit) > 1 else "normal")
    ax.set_yticks(np.arange(height) + 0.5, [f"{q}  ({n[:2]})" for n, q in shown["units"].index])
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=0, length=0)
    ax.tick_params(axis="y", length=0)
    save_figure(figure, order.reset_index(), output, "fig-grid-order")

# %% [markdown]
# ## All results
#
# {numref}`fig-grid-all` has every quantity of every run, baselines left out. The table that it is drawn
# from, baselines included, is `results.csv` in the grid's folder.

# %% tags=["hide-input"]
own = found[found.model.isin(measured)].drop_duplicates([*keys, "model"])
own = own.assign(label=own.model + (", " + own.setting if len(settings) > 1 else ""))
panels = list(own.groupby(["notebook", "quantity"], sort=False))

# %% mystnb={"figure": {"caption": "Every quantity for every model in every setting: the mean with its 95 % interval over pictures. The chapter's number stands in brackets.", "name": "fig-grid-all"}, "image": {"alt": "Small dot plots with intervals, one for each quantity, with a row for each model and setting."}} tags=["hide-input"]
if panels:
    across = 2
    down = -(-len(panels) // across)
    most = max(len(part) for _, part in panels)
    size = (8.5, down * (0.7 + 0.22 * most))
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for ax, ((notebook, quantity), part) in zip(axes.flat, panels, strict=False):
        interval_dots(part, colours, f"{quantity} ({notebook[:2]})", ax)
        ax.tick_params(labelsize="small")
        if ax not in axes[:, 0] and part.label.tolist() == panels[0][1].label.tolist():
            ax.set_yticklabels([])
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    save_figure(figure, own.drop(columns="label"), output, "fig-grid-all")
else:
    display(Markdown("No run has headline numbers yet."))

# %% [markdown]
# ## The runs
#
# Each run is a notebook, `run.ipynb`, in a folder of its own below the grid's, with its figures, the
# numbers behind them, and a record of code, checkpoints and data, which also stands at the foot of the
# notebook. One that failed has its reason here, and `log.txt` in its folder. {glue:text}`mixed`

# %% tags=["hide-input"]
versions = done.library.dropna().unique() if "library" in done else []
glue(
    "mixed",
    "All were made by the same version of the library."
    if len(versions) <= 1
    else f"They were made by {len(versions)} versions of the library: run the grid again.",
    display=False,
)


def linked(run):
    """What became of a run, with the way to its notebook, or to the log that tells the reason."""
    text = "done" if run.state == "done" else f"missing: {run.reason}"
    file = f"{run.folder}/{'run.ipynb' if run.state == 'done' else 'log.txt'}"
    if not links or not (folder / file).exists():
        return escape(text)
    return f'<a href="{quote(f"{links}/{file}")}">{escape(text)}</a>'


runs = cells.reindex(columns=["notebook", "models", "dataset", "seed", "seconds", "memory_mb"])
for column in ("notebook", "models", "dataset"):
    runs[column] = runs[column].map(escape)
runs["state"] = [linked(run) for run in cells.astype(object).fillna("").itertuples()]
runs = runs.rename(columns={"memory_mb": "memory (MB)"}).set_index("notebook")
table(runs, {"seconds": "{:.0f}", "memory (MB)": "{:.0f}"}, missing="–")

# %% [markdown]
# ## Make another
#
# A grid is described by a few lines, as in `params/grid.yml`, and made by
# `make grid GRID=params/mine.yml`, or on a cluster by Snakemake's executors. It may be stopped at any
# moment: what is done stays, and what has changed is done again.
#
# ## What would have disproved a finding
#
# - A row of {numref}`fig-grid-order` with both colours: then the finding belongs to the pictures or
#   the seed that it was made with.
# - Pale cells throughout: then the chapter's difference is smaller than what the choice of pictures does.

# %% [markdown]
# ## How this page was made

# %% tags=["hide-input"]
show_provenance("25-grid", parameters, [], [])
