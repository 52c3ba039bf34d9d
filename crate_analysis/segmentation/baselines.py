"""Attention maps that know nothing of the picture, and the best mask a patch grid allows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def random_attention(
    shape: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "*b gh gw"]:
    """Each patch drawn evenly from [0, 1): the score of a map that is noise."""
    return torch.rand(shape, generator=generator)


def centre_attention(gh: int, gw: int, spread: float = 0.25) -> Float[Tensor, "gh gw"]:
    """A Gaussian about the middle of the grid: the score of knowing only where photographers aim.

    `spread` is its standard deviation as a share of each side.
    """
    rows, columns = ((torch.arange(n) + 0.5) / n - 0.5 for n in (gh, gw))
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * spread**2))


def patch_ceiling(
    truth: Bool[Tensor, "b m H W"], patch_size: int, ignored: Bool[Tensor, "b H W"] | None = None
) -> Bool[Tensor, "b m gh gw"]:
    """The truth on the patch grid: patches of which it covers at least half of what counts.

    What it scores against the truth in pixels is about the most that any map of patches can.
    Pixels that are `ignored` (default: none) do not count; a patch of nothing else is in no mask.
    """
    counted = torch.ones_like(truth[:, :1]) if ignored is None else ~ignored[:, None]
    inside, pixels = (
        planes.unflatten(-2, (-1, patch_size)).unflatten(-1, (-1, patch_size)).sum((-3, -1))
        for planes in (truth & counted, counted)
    )
    return (2 * inside >= pixels) & (pixels > 0)
