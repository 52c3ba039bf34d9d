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
# A chapter measures a few networks on one set of images. Whether its finding holds for other weights
# and other images is a question for a *grid*: each of some chapters is run with each model, on each
# data set, with each seed, and this page puts the results side by side.
#
# **How to read it.** The intervals are each chapter's own, 95 %, over images. Settings (a data set
# with a seed) share their networks, so that agreement between them says nothing about other
# trainings; for these see [the ablation](14-ablation.ipynb).

# %% tags=["parameters"]
results: str = "../results/grid"
links: str = ""  # where the grid's folder lies, as seen from this page; empty for no links
output: str = "output"

# %% jupyter={"source_hidden": true} tags=["hide-input"]
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

from crate_analysis.grids import model_order, read_grid_results, stable_order
from crate_analysis.plotting import interval_dots, model_colours
from crate_analysis.study import Study
from crate_analysis.text import escape, figure_text

study = Study(globals(), "25-grid")

# %% [markdown]
# ## The comparison
#
# The first model of the grid is compared with the last, quantity by quantity and setting by setting.

# %%
grid = read_grid_results(results)
main, other = (grid.models[0], grid.models[-1]) if grid.models else ("", "")
order = model_order(grid.results, main, other) if main != other else pd.DataFrame()
stable = stable_order(order) if len(order) else pd.DataFrame()

# %% [markdown]
# ## What we find

# %% jupyter={"source_hidden": true} tags=["hide-input"]
found = [f"{len(grid.done)} of {len(grid.runs)} runs are done."]
if len(order):
    settings = order.setting.nunique()
    turning = ", ".join(stable.quantity[~stable.same]) or "none"
    found += [
        f"**{len(stable)} quantities were measured for both {escape(main)} and {escape(other)} in "
        f"{settings} settings; {stable.same.sum()} of them have the same order of the two in every "
        f"setting, {stable.clear.sum()} with intervals that nowhere overlap.** "
        f"The order is not the same everywhere for: {escape(turning)}."
    ]
else:
    found += ["Fewer than two models with results are here: there is no order to compare."]
versions = grid.done.get("library", pd.Series(dtype=str)).dropna().nunique()
if versions > 1:
    found += [f"The runs were made by {versions} versions of the library: run the grid again."]
Markdown(" ".join(found))

# %% [markdown]
# ## The order of two models
#
# [Figure 1](#fig-grid-order) has a row for each quantity and a column for each setting. A cell's number
# is the difference of the two means; its colour is that difference in units of the two intervals'
# half-widths together, so that beyond one unit, marked bold, the intervals do not overlap. A row of one
# colour is a finding that holds in every setting.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "The first model less the last, for each quantity (rows) in each setting (columns): the "
    "difference of means, coloured by its size in units of both intervals' half-widths. Bold where "
    "the intervals do not overlap. Blue: the first is higher, red: the last.",
    alt="A table of differences between two models, quantities in rows and settings in columns, "
    "coloured by size and sign.",
)
def grid_order():
    """Empty where there are no two models."""
    wide = order.pivot(index=["notebook", "quantity"], columns="setting") if len(order) else order
    height, width = (len(wide), wide.shape[1] // 2) if len(order) else (1, 1)
    _, ax = plt.subplots(figsize=(3.6 + 1.8 * width, 1.2 + 0.4 * height))
    if not len(order):
        ax.axis("off")
        return order
    numbers = wide.difference.map("{:.3g}".format)
    limits = {"vmin": -3, "vmax": 3, "cmap": "RdBu", "cbar_kws": {"label": "units of intervals"}}
    sns.heatmap(wide.units.clip(-3, 3), annot=numbers, fmt="", linewidths=1, ax=ax, **limits)
    for text, unit in zip(ax.texts, wide.units.stack().dropna(), strict=True):
        text.set_fontweight("bold" if abs(unit) > 1 else "normal")
    names = [figure_text(f"{quantity} ({chapter})", 40) for chapter, quantity in wide.index]
    ax.set_yticks(np.arange(height) + 0.5, names, fontsize="small", rotation=0)
    columns = [figure_text(setting, 20) for setting in wide.units.columns]
    ax.set_xticks(np.arange(width) + 0.5, columns, fontsize="small", rotation=0)
    ax.tick_params(length=0)
    ax.set(xlabel="", ylabel="")
    return order


# %% [markdown]
# ## All results
#
# [Figure 2](#fig-grid-all) has every quantity of every run, baselines left out. The table that it is
# drawn from, baselines included, is `results.csv` in the grid's folder.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
@study.figure(
    "Every quantity for every model in every setting: the mean with its 95 % interval over images.",
    alt="Small dot plots with intervals, one for each quantity, with a row for each model and "
    "setting.",
)
def grid_all():
    """Two panels a row."""
    own = grid.results[grid.results.model.isin(grid.models)]
    own = own.drop_duplicates(["notebook", "quantity", "setting", "model"])
    names = own.model + ", " + own.setting if own.setting.nunique() > 1 else own.model
    own = own.assign(label=names.map(figure_text))
    panels = list(own.groupby(["notebook", "quantity"], sort=False))
    lines = [1 + part.label.str.count("\n").sum() + len(part) for _, part in panels]
    heights = [max(lines[at : at + 2]) for at in range(0, len(lines), 2)] or [1]
    _, axes = plt.subplots(
        len(heights), 2, figsize=(9, 0.6 * len(heights) + 0.24 * sum(heights)), squeeze=False,
        layout="constrained", height_ratios=heights,
    )  # fmt: skip
    colours = model_colours(grid.models)
    for ax, ((chapter, quantity), part) in zip(axes.flat, panels, strict=False):
        interval_dots(part, colours, figure_text(f"{quantity} ({chapter})", 44), ax)
        ax.tick_params(labelsize="small")
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    return own.drop(columns="label")


# %% [markdown]
# ## The runs
#
# Each run of [Table 1](#tab-runs) is a notebook, `run.ipynb`, in a folder of its own below the grid's,
# with its figures, the numbers behind them, and a record of code, checkpoints and data, which also
# stands at the foot of the notebook. One that failed has its reason here, and its `log.txt`.


# %% jupyter={"source_hidden": true} tags=["hide-input"]
def link(file):
    """The way to a run's notebook or log, where the page knows it."""
    name = file.rpartition("/")[2]
    return f'<a href="{quote(f"{links}/{file}")}">{name}</a>' if links and file else file


@study.table("The runs of the grid.", formats={"file": link, "seconds": "{:.0f}", "MB": "{:.0f}"})
def runs():
    """One a row, with what became of it."""
    columns = ["notebook", "models", "dataset", "seed", "seconds", "memory_mb"]
    frame = grid.runs.reindex(columns=columns).rename(columns={"memory_mb": "MB"})
    done = grid.runs.state == "done"
    frame["state"] = ("missing: " + grid.runs.reason.fillna("")).where(~done, "done")
    files = grid.runs.folder + done.map({True: "/run.ipynb", False: "/log.txt"})
    frame["file"] = [file if Path(results, file).exists() else "" for file in files]
    return frame


# %% [markdown]
# ## Make another
#
# A grid is described by a few lines, as in `params/grid.yml`, and made by
# `make grid GRID=params/mine.yml`, or on a cluster by Snakemake's executors. It may be stopped at any
# moment: what is done stays, and what has changed is done again.
#
# ## What would have disproved a finding
#
# - A row of [Figure 1](#fig-grid-order) with both colours: then the finding belongs to the images or
#   the seed that it was made with.
# - Pale cells throughout: then the chapter's difference is smaller than what the choice of images does.

# %% [markdown]
# ## How this page was made

# %% jupyter={"source_hidden": true} tags=["hide-input"]
study.provenance()
