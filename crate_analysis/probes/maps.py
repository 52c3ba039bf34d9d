"""Numbers of attention maps: how wide they are, what they lie on, how alike two of them are.

A map is read as a distribution of attention over the patches, so its scale does not matter: what
`[CLS]` gives to itself is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.checks import check_match


def effective_patches(maps: Float[Tensor, "*b gh gw"]) -> Float[Tensor, "*b"]:
    """How many patches each map attends to, exp of its entropy: from 1 to gh gw.

    A map spread evenly over k patches, whichever they are, has k (its perplexity). Raises
    ValueError for negative entries, NaN, and a map without attention.
    """
    return torch.special.entr(_distribution(maps, "maps")).sum(-1).exp()


def attention_share(
    maps: Float[Tensor, "b h gh gw"], masks: Bool[Tensor, "b m H W"]
) -> Float[Tensor, "b h m"]:
    """Share of each map that lies on each mask, in [0, 1]; an even map gives its share of pixels.

    A patch's attention is spread evenly over its pixels. Raises ValueError as `effective_patches`
    does, and where the grid does not divide the masks.
    """
    check_match(1, maps=maps, masks=masks)
    return _distribution(maps, "maps") @ _covered(masks, maps.shape[-2:]).flatten(2).mT


def map_similarity(
    a: Float[Tensor, "*b gh gw"], b: Float[Tensor, "*b gh gw"]
) -> Float[Tensor, "*b"]:
    """What two maps have in common, in [0, 1]: 1 where they are alike, 0 where they do not meet.

    Each map is scaled to sum to 1; the value is the sum over patches of the smaller of the two,
    the histogram intersection, which is 1 less the total variation distance. Two wide maps have
    much in common whatever the pictures: show what the maps of *different* pictures have in common
    beside it. Raises ValueError as `effective_patches` does.
    """
    check_match(a=a, b=b)
    return torch.minimum(_distribution(a, "a"), _distribution(b, "b")).sum(-1)


def regrid(
    maps: Float[Tensor, "*b gh gw"], grid: tuple[int, int]
) -> Float[Tensor, "*b rows columns"]:
    """Maps on another grid over the same picture, by area; their sums stay as they are.

    Each patch's attention is spread evenly over its area, and each new patch takes what falls into
    it. The new grid may be finer or coarser, by any ratio.
    """
    if min(grid) < 1:
        raise ValueError(f"grid={grid} must have at least one row and one column")
    rows, columns = (_parts(old, new) for old, new in zip(maps.shape[-2:], grid, strict=True))
    return rows.to(maps) @ maps @ columns.to(maps).mT


def map_frame(maps: Float[Tensor, "b h gh gw"], **columns: object) -> pd.DataFrame:
    """The true grid as a tidy frame: image, head, row, column (from 0), attention.

    `columns` are put before them, such as ``model="crate-creatures"``.
    """
    image, head, row, column = np.indices(maps.shape).reshape(4, -1)
    values: Mapping[str, object] = {
        **columns,
        "image": image,
        "head": head,
        "row": row,
        "column": column,
        "attention": maps.cpu().numpy().ravel(),
    }
    return pd.DataFrame(values)


def _covered(masks: Tensor, grid: tuple[int, int] | torch.Size) -> Tensor:
    """The share of each patch that each mask covers, (..., gh, gw)."""
    (gh, gw), (height, width) = grid, masks.shape[-2:]
    if height % gh or width % gw:
        raise ValueError(
            f"a grid of {gh} x {gw} patches does not divide masks of {height} x {width} pixels;"
            " load the data set at the image size that the maps were made at"
        )
    cells = masks.unflatten(-2, (gh, -1)).unflatten(-1, (gw, -1))
    return cells.float().mean((-3, -1))


def _parts(old: int, new: int) -> Tensor:
    """The share of each of `old` equal pieces of a line in each of `new` pieces, (new, old)."""
    ends = torch.arange(old + 1) * new  # in units of 1 / (old new) of the line
    new_ends = torch.arange(new + 1)[:, None] * old
    shared = torch.minimum(ends[1:], new_ends[1:]) - torch.maximum(ends[:-1], new_ends[:-1])
    return shared.clamp(min=0) / new


def _distribution(maps: Tensor, name: str) -> Tensor:
    flat = maps.flatten(-2)
    if not (torch.isfinite(flat) & (flat >= 0)).all():
        raise ValueError(
            f"{name} holds negative entries or NaN, or infinite ones, which are no attention"
        )
    flat = flat / flat.amax(-1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    total = flat.sum(-1, keepdim=True)
    if not (total > 0).all():
        raise ValueError(f"{name} holds a map that is zero everywhere: leave it out")
    return flat / total
