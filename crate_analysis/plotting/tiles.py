"""Tiles: images, maps and masks as pixels, and the sheets that they are laid out on.

Each function takes pixels and gives pixels, or takes tiles and an Axes and returns the Axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from crate_analysis.plotting.charts import Colour

Picture = NDArray[np.uint8]

MASK_COLOUR: Colour = (0.94, 0.27, 0.17)
HEAT_MAP = "magma"
GAP = 4
"""Pixels of white between the tiles of a sheet."""


def heat(attention: NDArray[np.floating], size: tuple[int, int]) -> Picture:
    """A map as colours, from 0 (dark) to its own maximum (bright), each patch a block of pixels."""
    scaled = attention / max(float(attention.max()), 1e-30)
    colours = mpl.colormaps[HEAT_MAP](scaled)[..., :3]
    return (255 * _blocks(colours, size)).astype(np.uint8)


def overlay(picture: Picture, mask: NDArray[np.bool_], colour: Colour = MASK_COLOUR) -> Picture:
    """An image whose masked pixels are tinted and whose other pixels are greyed.

    A mask of patches, (gh, gw), is as good as one of pixels.
    """
    mask = _blocks(mask, picture.shape[:2])
    grey = np.repeat(picture.mean(-1, keepdims=True), 3, -1) * 0.6 + 90
    tinted = 0.55 * picture + 0.45 * 255 * np.array(colour)
    return np.where(mask[..., None], tinted, grey).clip(0, 255).astype(np.uint8)


def tint(picture: Picture, masks: NDArray[np.bool_]) -> Picture:
    """An image with each mask in a colour of its own: red, blue, green, and on.

    Masks of patches, (m, gh, gw), are as good as those of pixels, (m, H, W).
    """
    import seaborn as sns

    tinted = picture.astype(float)
    for mask, colour in zip(masks, itertools.cycle(sns.color_palette("Set1")), strict=False):
        mask = _blocks(mask, picture.shape[:2])
        tinted[mask] = 0.45 * picture[mask] + 0.55 * 255 * np.array(colour)
    return tinted.astype(np.uint8)


def sheet(
    tiles: Sequence[Sequence[Picture]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    ax: Axes | None = None,
    groups: Mapping[str, int] | None = None,
) -> Axes:
    """A sheet of equally large images (H, W, 3), with names of its columns and rows.

    `groups` are headings above the columns, each over as many as it says: ``{"": 1, "ViT": 4}``.
    """
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
    first = 0
    for name, count in (groups or {}).items():
        middle = (first + count / 2) * (width + GAP) - GAP / 2
        ax.annotate(
            name,
            (middle, 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 18),
            textcoords="offset points",
            ha="center",
            va="bottom",
        )
        first += count
    return ax


def outlines(
    masks: Sequence[Sequence[NDArray[np.bool_] | None]],
    colour: str = "cyan",
    ax: Axes | None = None,
) -> Axes:
    """The edges of masks on the tiles of a `sheet`; None leaves a tile as it is."""
    ax = ax or plt.gca()
    limits = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    for row, line in enumerate(masks):
        for column, mask in enumerate(line):
            if mask is None:
                continue
            height, width = mask.shape
            x = column * (width + GAP) + np.arange(-1, width + 1)
            y = row * (height + GAP) + np.arange(-1, height + 1)
            ax.contour(x, y, np.pad(mask, 1), levels=[0.5], colors=[colour], linewidths=0.8)
    ax.set(**limits)
    return ax


def rgb_tile(colours: NDArray[np.floating], size: tuple[int, int]) -> Picture:
    """Colours of patches in [0, 1], (gh, gw, 3), as an image in blocks of pixels; NaN is white."""
    return (255 * np.nan_to_num(_blocks(colours, size), nan=1.0)).astype(np.uint8)


def smooth_heat(attention: NDArray[np.floating], size: tuple[int, int]) -> Picture:
    """`heat` of a smooth surface through the patches' values, in place of blocks: for display only.

    Bicubic, cut at 0; each patch's value lies at its middle.
    """
    surface = Image.fromarray(attention.astype(np.float32))
    return heat(np.asarray(surface.resize(size[::-1], Image.Resampling.BICUBIC)).clip(0), size)


def frame_patch(
    picture: Picture, position: Sequence[int], grid: tuple[int, int], colour: Colour = MASK_COLOUR
) -> Picture:
    """An image with a frame just inside the patch at a row and column of the patch grid."""
    height, width = (side // patches for side, patches in zip(picture.shape, grid, strict=False))
    top, left = position[0] * height, position[1] * width
    line = max(1, height // 6)
    framed = picture.copy()
    framed[top : top + height, left : left + width] = 255 * np.array(colour)
    inside = slice(top + line, top + height - line), slice(left + line, left + width - line)
    framed[inside] = picture[inside]
    return framed


def _blocks(values: NDArray, size: Sequence[int]) -> NDArray:
    """Values of patches, (gh, gw, ...), at each of `size` pixels."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, values.shape[:2], strict=True))
    return values[rows[:, None], columns]
