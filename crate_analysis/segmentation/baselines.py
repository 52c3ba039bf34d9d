"""Attention maps that know nothing of the image, and the best mask a patch grid allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.checks import check_match
from crate_analysis.datasets import Sample, stack_images


def centre_attention(gh: int, gw: int, spread: float = 0.25) -> Float[Tensor, "gh gw"]:
    """A Gaussian about the middle of the grid: the score of knowing only where photographers aim.

    `spread` is its standard deviation as a share of each side.
    """
    rows, columns = ((torch.arange(n) + 0.5) / n - 0.5 for n in (gh, gw))
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * spread**2))


def blob_about(
    positions: Int64[Tensor, "b q 2"], grid: tuple[int, int], spread: float = 0.25
) -> Float[Tensor, "b q gh gw"]:
    """A Gaussian about each patch, at these rows and columns: the score of mere nearness.

    The rival of a patch's attention, since near patches are alike. `spread` is the standard
    deviation as a share of each side, as in `centre_attention`.
    """
    away = [
        (torch.arange(side) - positions[..., axis, None]) / side for axis, side in enumerate(grid)
    ]
    squares = away[0][..., :, None] ** 2 + away[1][..., None, :] ** 2
    return torch.exp(-squares / (2 * spread**2))


def patch_ceiling(
    truth: Bool[Tensor, "b m H W"], patch_size: int, ignored: Bool[Tensor, "b H W"] | None = None
) -> Bool[Tensor, "b m gh gw"]:
    """The truth on the patch grid: patches of which it covers at least half of what counts.

    What it scores against the truth in pixels is about the most that any map of patches can.
    Pixels that are `ignored` (default: none) do not count; a patch of nothing else is in no mask.
    """
    if ignored is not None:
        check_match(truth=truth.any(1), ignored=ignored)
    counted = torch.ones_like(truth[:, :1]) if ignored is None else ~ignored[:, None]
    inside, pixels = (
        planes.unflatten(-2, (-1, patch_size)).unflatten(-1, (-1, patch_size)).sum((-3, -1))
        for planes in (truth & counted, counted)
    )
    return (2 * inside >= pixels) & (pixels > 0)


def patch_grid(samples: Sequence[Sample], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches; ValueError where they do not fill the images."""
    height, width = stack_images(samples).shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"images are {height} x {width} pixels, which patch_size={patch_size} does not "
            "divide; load the data set with another image_size"
        )
    return height // patch_size, width // patch_size
