"""Drawing: each function takes data and an Axes and returns the Axes; nothing is computed or saved.

Frames are those of `measure_layers` and `attention_iou`. Layers are counted from 1 in figures, as
in the papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Picture = NDArray[np.uint8]

MASK_COLOUR: Colour = (0.94, 0.27, 0.17)
HEAT_MAP = "magma"
GAP = 4
"""Pixels of white between the tiles of a sheet."""


def model_colours(names: Sequence[str]) -> dict[str, Colour]:
    """A colour for each model, the same wherever the models are named in the same order."""
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
    frame: pd.DataFrame, colours: Mapping[str, Colour], xlabel: str = "", ax: Axes | None = None
) -> Axes:
    """A dot and its confidence interval for each row: columns label, model, mean, low, high."""
    ax = ax or plt.gca()
    for position, row in enumerate(frame.to_dict("records")):
        colour = colours.get(row["model"], (0.45, 0.45, 0.45))
        ax.plot([row["low"], row["high"]], [position, position], color=colour, linewidth=2)
        ax.plot(row["mean"], position, "o", color=colour)
        ax.annotate(
            f"{row['mean']:.3f}",
            (row["high"], position),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    ax.set_yticks(range(len(frame)), frame["label"])
    ax.set_ylim(len(frame) - 0.5, -0.5)
    ax.set_xlim(min(0, frame.low.min()) * 1.15, max(0, frame.high.max()) * 1.15)
    if frame.low.min() < 0:
        ax.axvline(0, color="0.35", linestyle=":", linewidth=1)
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


def heat(attention: NDArray[np.floating], size: tuple[int, int]) -> Picture:
    """A map as colours, from 0 (dark) to its own maximum (bright), each patch a block of pixels."""
    scaled = attention / max(float(attention.max()), 1e-30)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, attention.shape, strict=True))
    colours = mpl.colormaps[HEAT_MAP](scaled)[..., :3]
    return (255 * colours[rows[:, None], columns]).astype(np.uint8)


def overlay(picture: Picture, mask: NDArray[np.bool_], colour: Colour = MASK_COLOUR) -> Picture:
    """A picture whose masked pixels are tinted and whose other pixels are greyed."""
    grey = np.repeat(picture.mean(-1, keepdims=True), 3, -1) * 0.6 + 90
    tinted = 0.55 * picture + 0.45 * 255 * np.array(colour)
    return np.where(mask[..., None], tinted, grey).clip(0, 255).astype(np.uint8)


def sheet(
    tiles: Sequence[Sequence[Picture]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """A sheet of equally large pictures (H, W, 3), with names of its columns and rows."""
    ax = ax or plt.gca()
    height, width = tiles[0][0].shape[:2]
    canvas = np.full(
        (
            len(tiles) * (height + GAP) - GAP,
            max(map(len, tiles)) * (width + GAP) - GAP,
            3,
        ),
        255,
        np.uint8,
    )
    for row, line in enumerate(tiles):
        for column, tile in enumerate(line):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[top : top + height, left : left + width] = tile
    ax.imshow(canvas, interpolation="nearest")
    ax.set_xticks([column * (width + GAP) + width / 2 for column in range(len(columns))], columns)
    ax.set_yticks([row * (height + GAP) + height / 2 for row in range(len(rows))], rows)
    ax.tick_params(length=0, labelsize="small", top=True, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
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
