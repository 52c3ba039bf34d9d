"""A drawing: one image's way through a model to attention maps and masks, in real arrays.

After Fig. 2 of Yu et al. 2024. Like all drawing, it takes data and an Axes and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from crate_analysis.plotting import Picture, heat, overlay

CLS_COLOUR = "#0b7a6b"
LABELS = ("patches", "layers", "tokens", "projections", "attention", "map", "mask")

_TOP, _PITCH, _ROW = 27.0, 10.6, 9.0  # of the heads' rows, where the width is 100


def walkthrough(
    picture: Picture,
    tokens: NDArray[np.floating],
    projections: NDArray[np.floating],
    attention: NDArray[np.floating],
    masks: NDArray[np.bool_],
    labels: Mapping[str, str],
    ax: Axes | None = None,
) -> Axes:
    """From an image to every head's mask, through one layer.

    Parameters
    ----------
    picture : (H, W, 3), whose sides the patch grid divides.
    tokens : (t, d), what the layer is given; `[CLS]` first, the patches last, row by row. What is
        between them, registers, is not drawn.
    projections : (h, t, p), the tokens in each head's subspace.
    attention : (h, t), the softmax row of `[CLS]`.
    masks : (h, gh, gw), the patches that are kept of each map.
    labels : what to write at each of `LABELS`.

    Returns the Axes, 100 wide and as high as the heads need, see `walkthrough_height`. Raises
    ValueError for a missing label and for arrays that disagree on the number of tokens.
    """
    missing = [name for name in LABELS if name not in labels]
    if missing:
        raise ValueError(f"labels lacks {', '.join(missing)}")
    grid = masks.shape[1:]
    counts = (len(tokens), projections.shape[1], attention.shape[1])
    patches = grid[0] * grid[1]
    if len(set(counts)) > 1 or counts[0] <= patches:
        raise ValueError(
            f"tokens, projections, attention and masks are of {(*counts, patches + 1)} tokens: take"
            " them from one image and layer"
        )
    drawn = [0, *range(counts[0] - patches, counts[0])]
    tokens, projections, attention = tokens[drawn], projections[:, drawn], attention[:, drawn]
    ax = ax or plt.gca()
    ax.set(
        xlim=(-1.5, 101.5), ylim=(walkthrough_height(len(attention)) - 4.5, -4.5), aspect="equal"
    )
    ax.axis("off")

    _tile(ax, picture, 0.0, 0.0, 16.0)
    _tile(ax, _apart(picture, grid), 21.0, 0.0, 16.0)
    _columns(ax, tokens, 53.0, 0.0, 47.0, 16.0)
    _arrow(ax, (16.6, 8.0), (20.4, 8.0))
    _arrow(ax, (37.6, 8.0), (51.6, 8.0))
    _say(ax, labels["layers"], 44.4, 7.2, size=8.0)
    for x, text in ((8.0, "image"), (29.0, labels["patches"]), (76.5, labels["tokens"])):
        _say(ax, text, x, -0.8)

    _arrow(ax, (76.5, 16.6), (76.5, 18.8), (20.5, 18.8), (20.5, 21.2))
    for x, name in ((20.5, "projections"), (55.8, "attention"), (79.8, "map"), (93.5, "mask")):
        _say(ax, labels[name], x, _TOP - 1)
    for head, (values, row, mask) in enumerate(zip(projections, attention, masks, strict=True)):
        y = _TOP + _PITCH * head
        middle = y + _ROW / 2
        ax.text(1, middle, f"head {head + 1}", rotation=90, ha="center", va="center", fontsize=9)
        _columns(ax, values, 3.5, y, 34.0, _ROW)
        _arrow(ax, (38.2, middle), (41.2, middle))
        _bars(ax, row, 42.0, y, 28.0, _ROW)
        _arrow(ax, (71.0, middle), (74.4, middle))
        _tile(ax, heat(row[1:].reshape(grid), picture.shape[:2]), 75.3, y, _ROW)
        _arrow(ax, (84.9, middle), (88.3, middle))
        tall, wide = (side // patches for side, patches in zip(picture.shape, grid, strict=False))
        kept = overlay(picture, mask.repeat(tall, 0).repeat(wide, 1))
        _tile(ax, kept, 89.0, y, _ROW)
    return ax


def walkthrough_height(heads: int) -> float:
    """How high the drawing is where it is 100 wide, to choose the figure's shape by."""
    return _TOP + _PITCH * heads + 4


def _say(ax: Axes, text: str, x: float, y: float, size: float = 9.0) -> None:
    ax.text(x, y, text, ha="center", va="bottom", fontsize=size, linespacing=1.5)


def _tile(ax: Axes, picture: Picture, x: float, y: float, height: float) -> None:
    width = height * picture.shape[1] / picture.shape[0]
    middle = x + height / 2
    extent = (middle - width / 2, middle + width / 2, y + height, y)
    ax.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")


def _apart(picture: Picture, grid: tuple[int, ...]) -> Picture:
    """The image with white between its patches."""
    gap = max(1, picture.shape[0] // grid[0] // 5)
    for axis in (0, 1):
        pieces = np.split(picture, grid[axis], axis)
        white = np.full_like(pieces[0].take(range(gap), axis), 255)
        apart = [part for piece in pieces for part in (piece, white)]
        picture = np.concatenate(apart[:-1], axis)
    return picture


def _columns(
    ax: Axes, tokens: NDArray[np.floating], x: float, y: float, width: float, height: float
) -> None:
    """Tokens (t, c) as columns, the one of `[CLS]` set apart, drawn wider and framed."""
    reach = float(np.quantile(np.abs(tokens), 0.98)) or 1.0
    extents = ((x, x + 1.2, y + height, y), (x + 2, x + width, y + height, y))
    for part, extent in zip((tokens[:1], tokens[1:]), extents, strict=True):
        ax.imshow(
            part.T,
            cmap="RdBu_r",
            vmin=-reach,
            vmax=reach,
            extent=extent,
            interpolation="nearest",
            aspect="auto",
        )
    ax.add_patch(plt.Rectangle((x, y), 1.2, height, fill=False, edgecolor=CLS_COLOUR, lw=1.6))
    box = (x + 2, y), width - 2, height
    ax.add_patch(plt.Rectangle(*box, fill=False, edgecolor="0.6", linewidth=0.6))


def _bars(
    ax: Axes, row: NDArray[np.floating], x: float, y: float, width: float, height: float
) -> None:
    """A softmax row (t,) as bars, the one of `[CLS]` with itself first, wider and coloured."""
    scale = height / row.max()
    step = (width - 2) / (len(row) - 1)
    floor = y + height
    ax.bar(x + 0.6, -scale * row[0], 1.2, floor, color=CLS_COLOUR)
    left = x + 2 + step * np.arange(len(row) - 1)
    ax.bar(left, -scale * row[1:], step, floor, align="edge", color="0.25", linewidth=0)
    ax.plot([x, x + width], [floor, floor], color="0.6", linewidth=0.6)
    ax.text(x + width, y, f"largest {row.max():.2g}", ha="right", va="top", fontsize=7, color="0.4")


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
    """A line through the points with a head at its end."""
    ax.plot(*zip(*points[:-1], strict=True), color="0.3", linewidth=1)
    style = {"arrowstyle": "-|>", "lw": 1, "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", points[-1], points[-2], arrowprops=style)
