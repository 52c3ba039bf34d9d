"""Charts: curves, dots and grids of numbers, from tidy frames.

Each function takes data and an Axes and returns the Axes; nothing is computed or saved. Frames are
those of `measure_layers` and `head_scores`. Layers are counted from 1 in figures, as in the papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Colour = tuple[float, float, float]


def model_colours(names: Sequence[str]) -> dict[str, Colour]:
    """A colour for each model, the same wherever the models are named in the same order."""
    import seaborn as sns

    palette = sns.color_palette("colorblind", max(len(names), 1))
    return dict(zip(names, palette, strict=False))


def layer_curves(
    frame: pd.DataFrame,
    colours: Mapping[str, Colour],
    style: str | None = None,
    styles: Sequence[str] | None = None,
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """The mean over images against depth, with a band of one standard deviation over images.

    `frame` has the columns layer (from 0), value, model (the colour) and, where `style` names it,
    a column that sets the dashes; `styles` are its values, the solid one first.
    """
    import seaborn as sns

    ax = ax or plt.gca()
    sns.lineplot(
        frame.assign(layer=frame.layer + 1),
        x="layer",
        y="value",
        hue="model",
        hue_order=list(colours),
        palette=dict(colours),
        style=style,
        style_order=styles,
        errorbar="sd",
        marker="o",
        markeredgewidth=0,
        ax=ax,
    )
    ax.set(xlabel="layer", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    return _legend_above(ax, headings=("model", style))


def reference_line(value: float, label: str, ax: Axes | None = None) -> Axes:
    """A dotted level across the axes, its name to the right of them."""
    ax = ax or plt.gca()
    ax.axhline(value, color="0.35", linestyle=":", linewidth=1)
    ax.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize="small",
        color="0.35",
    )
    return ax


def interval_dots(
    frame: pd.DataFrame,
    colours: Mapping[str, Colour],
    xlabel: str = "",
    ax: Axes | None = None,
    digits: int = 3,
) -> Axes:
    """A dot, its interval and its number for each row: columns label, model, mean, low, high.

    The ends are NaN where there is no interval.
    """
    ax = ax or plt.gca()
    ends = frame[["mean", "low", "high"]]
    least, most = min(0, ends.min().min()), max(0, ends.max().max())
    for position, row in enumerate(frame.to_dict("records")):
        colour = colours.get(row["model"], (0.45, 0.45, 0.45))
        ax.plot([row["low"], row["high"]], [position, position], color=colour, linewidth=2)
        ax.plot(row["mean"], position, "o", color=colour)
        ax.annotate(
            f"{row['mean']:.{digits}f}",
            (np.nanmax([row["mean"], row["high"]]), position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    ax.set_yticks(range(len(frame)), frame["label"])
    ax.set_ylim(len(frame) - 0.5, -0.5)
    ax.set_xlim(least * 1.15, most * 1.15)
    if least < 0:
        ax.axvline(0, color="0.35", linestyle=":", linewidth=1)
    ax.set_xlabel(xlabel)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def run_dots(
    runs: pd.DataFrame,
    means: Mapping[str, Sequence[float]],
    colours: Mapping[str, Colour],
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A row for each kind of training, a dot for each run, and below the dots their mean.

    `runs` has the columns cell, value and counts: whether the run is part of the mean (filled) or
    not (hollow). `means` has mean, low and high of each cell, in the order of the rows; the ends
    are NaN where there is no interval.
    """
    ax = ax or plt.gca()
    for place, (cell, (mean, low, high)) in enumerate(means.items()):
        colour = colours[cell]
        rows = runs[runs.cell == cell]
        for value, counts in zip(rows.value.tolist(), rows.counts.tolist(), strict=True):
            face = colour if counts else "none"
            ax.plot(value, place, "o", color=colour, markerfacecolor=face)
        ax.plot([low, high], [place + 0.28] * 2, color=colour, linewidth=2)
        ax.plot(mean, place + 0.28, "|", color=colour, markersize=9)
    ax.set_yticks(range(len(means)), list(means))
    ax.set_ylim(len(means) - 0.4, -0.5)
    ax.set_xlabel(xlabel)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def interval_curves(
    frame: pd.DataFrame,
    colours: Mapping[str, Colour],
    x: str,
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """A curve with its band for each model: columns model, `x`, mean, low, high."""
    ax = ax or plt.gca()
    for name, colour in colours.items():
        rows = frame[frame.model == name].sort_values(x)
        ax.fill_between(rows[x], rows.low, rows.high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(rows[x], rows["mean"], "o-", color=colour, label=name, markersize=4)
    ax.set(xlabel=x, ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def step_axis(steps: Sequence[int], ax: Axes | None = None) -> Axes:
    """Training steps that double lie at even distances, and step 0 before them."""
    ax = ax or plt.gca()
    later = sorted(step for step in steps if step > 0)
    if later:
        ax.set_xscale("symlog", base=2, linthresh=later[0])
    ax.set_xticks(sorted(steps), [f"{step:,}" for step in sorted(steps)])
    ax.minorticks_off()
    ax.set_xlabel("training step")
    return ax


def pair_map(
    values: NDArray[np.floating],
    chance: float,
    reach: float,
    numbers: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """What each two heads of a layer have in common, (h, h): colours for more or less than chance.

    Colours end at `chance` plus and minus `reach`; `numbers` stand in the cells of at most 6 heads.
    A head with itself is left blank.
    """
    import seaborn as sns

    ax = ax or plt.gca()
    heads = np.arange(1, len(values) + 1)
    sns.heatmap(
        pd.DataFrame(values, heads, heads),
        mask=np.eye(len(values), dtype=bool),
        cmap="vlag",
        vmin=chance - reach,
        vmax=chance + reach,
        annot=bool(numbers) and len(values) <= 6,
        fmt=".2f",
        annot_kws={"fontsize": 7},
        cbar=False,
        square=True,
        xticklabels=len(values) <= 6,
        yticklabels=len(values) <= 6,
        ax=ax,
    )
    ax.tick_params(length=0, labelsize="x-small", labelrotation=0)
    return ax


def chance_band(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A grey band behind curves over layers: columns layer (from 0), low and high."""
    ax = ax or plt.gca()
    ax.fill_between(frame.layer + 1, frame.low, frame.high, color="0.9", linewidth=0, zorder=0)
    return ax


def spectra(
    frame: pd.DataFrame,
    colours: Mapping[str, Colour],
    style: str,
    styles: Sequence[str],
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Singular values by rank, a line a layer: columns model, layer, rank, value and `style`."""
    import seaborn as sns

    ax = ax or plt.gca()
    sns.lineplot(
        frame,
        x="rank",
        y="value",
        hue="model",
        hue_order=list(colours),
        palette=dict(colours),
        style=style,
        style_order=styles,
        units="layer",
        estimator=None,
        linewidth=0.9,
        ax=ax,
    )
    ax.set(xlabel="rank", ylabel=ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    return _legend_above(ax, headings=("model", style))


def head_grid(
    scores: pd.DataFrame,
    marked: pd.DataFrame | None = None,
    limit: float = 1.0,
    ax: Axes | None = None,
) -> Axes:
    """Heads down, masks across: red above 0, blue below, with hundredths where there is room.

    `scores` has the index (layer, head), both from 0, and a column for each mask; `marked`, of the
    same shape, says which cells are framed. Colours end at -limit and limit.
    """
    import seaborn as sns

    ax = ax or plt.gca()
    rows, columns = scores.shape
    roomy = rows <= 40 and columns <= 8
    colours = sns.color_palette("vlag", as_cmap=True)
    ax.imshow(scores, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(scores):
        if roomy and np.isfinite(value):
            text = f"{round(100 * value)}".replace("-", "\N{MINUS SIGN}")
            colour = "white" if abs(value) > 0.6 * limit else "0.15"
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        if marked is not None and marked.iat[row, column]:
            corner = (column - 0.5, row - 0.5)
            frame = plt.Rectangle(corner, 1, 1, fill=False, linewidth=1.6, clip_on=False, zorder=3)
            ax.add_patch(frame)
    layers, heads = (scores.index.get_level_values(level).to_numpy() for level in (0, 1))
    for layer in np.unique(layers):
        own = np.flatnonzero(layers == layer)
        if own[0]:
            ax.axhline(own[0] - 0.5, color="white", linewidth=2)
        ax.annotate(
            f"layer {layer + 1}",
            (0, own.mean()),
            xycoords=ax.get_yaxis_transform(),
            xytext=(-16 if roomy else -4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize="small",
        )
    ax.set_yticks(range(rows) if roomy else [], heads + 1 if roomy else [])
    ax.set_xticks(range(columns), scores.columns)
    ax.tick_params(length=0, labelsize="small", top=True, labeltop=True, labelbottom=False)
    if columns > 8 or max(map(len, scores.columns)) > 6:  # of the labels that are shown
        plt.setp(ax.get_xticklabels(), rotation=45, ha="left", rotation_mode="anchor")
    ax.spines[:].set_visible(False)
    return ax


def group_dots(
    frame: pd.DataFrame,
    colours: Mapping[str, Colour],
    levels: pd.DataFrame | None = None,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Dots with confidence intervals, group by group down the axes, with reference levels.

    `frame` has the columns group, label, mean, low, high; `colours` holds the colour of each label,
    in the order in which they lie below each other. `levels` has a row for each group and a column
    for each level, drawn across the group's lines in grey, each darker than the one before.
    """
    ax = ax or plt.gca()
    groups = list(dict.fromkeys(frame["group"]))
    for place, (label, colour) in enumerate(colours.items()):
        own = frame[frame["label"] == label]
        shift = (place - (len(colours) - 1) / 2) * 0.7 / len(colours)
        y = own["group"].map(groups.index) + shift
        ax.hlines(y, own.low, own.high, color=colour, linewidth=2)
        ax.plot(own["mean"], y, "o", color=colour, markersize=4.5, label=label)
    if levels is not None:
        for name, shade in zip(levels, np.linspace(0.75, 0.1, levels.shape[1]), strict=True):
            rows = np.array([groups.index(group) for group in levels.index])
            ends, grey = (rows - 0.42, rows + 0.42), str(shade)
            ax.vlines(levels[name], *ends, color=grey, linewidth=1.4, zorder=0, label=str(name))
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(xlabel)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _legend_above(ax: Axes, headings: Sequence[str | None]) -> Axes:
    """One line above the axes in place of seaborn's block inside them."""
    entries = zip(*ax.get_legend_handles_labels(), strict=True)
    kept = [(handle, label) for handle, label in entries if label not in headings]
    for handle, _ in kept:
        handle.set(marker="")  # it would hide the dashes
    ax.legend(
        *zip(*kept, strict=True),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(kept),
        columnspacing=1.2,
        handlelength=2.4,
        fontsize="small",
        frameon=False,
    )
    return ax
