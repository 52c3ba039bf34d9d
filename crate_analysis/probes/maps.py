"""Numbers of attention maps: how wide they are, what they lie on, how alike two of them are.

A map is read as a distribution of attention over the patches, so its scale does not matter: what
`[CLS]` gives to itself is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.checks import check_match
from crate_analysis.datasets import Samples
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.walk import READING, Reading, walk


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
    much in common whatever the images: show what the maps of *different* images have in common
    beside it. Raises ValueError as `effective_patches` does.
    """
    check_match(a=a, b=b)
    return torch.minimum(_distribution(a, "a"), _distribution(b, "b")).sum(-1)


def kept_similarity(
    maps: Float[Tensor, "b h gh gw"], reference: Float[Tensor, "b h gh gw"], draws: int = 4
) -> pd.DataFrame:
    """What maps have kept of what tells an image's map from another image's.

    Wide maps are alike whatever the image, so that `map_similarity` alone says little. Its rival
    is the similarity to the reference maps of *other* images: those `draws` places further on (at
    most one less than there are images).

    Parameters
    ----------
    maps : each image's maps after some change, such as noise.
    reference : the same images' maps before it.

    Returns a row an image, means over heads: image (its place), similarity, others (that to the
    reference maps of other images), and kept, (similarity - o) / (1 - o) with o the mean of others
    over all images: 1 where nothing has changed, about 0 where a map tells no more of its own image
    than of another. Raises ValueError for fewer than two images and as `map_similarity`.

    >>> kept_similarity(torch.eye(4).view(4, 1, 2, 2), torch.eye(4).view(4, 1, 2, 2)).kept.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if len(maps) < 2:
        raise ValueError("one image has no maps of other images beside it; give at least two")
    own = map_similarity(maps, reference).mean(1)
    turns = range(1, 1 + min(draws, len(maps) - 1))
    rivals = [map_similarity(maps, reference.roll(-turn, 0)).mean(1) for turn in turns]
    others = torch.stack(rivals).mean(0)
    level = float(others.mean())
    kept = (own - level) / max(1 - level, torch.finfo(own.dtype).eps)
    values = {"similarity": own, "others": others, "kept": kept}
    return pd.DataFrame({"image": range(len(maps)), **{k: v.numpy() for k, v in values.items()}})


@torch.inference_mode()
def map_numbers(
    model: UnrolledModel,
    data: Samples,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """How wide each head's map of `[CLS]` is, and how evenly it lies on the objects.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them.

    Returns a row for each image, layer and head: model, layer, image, head; width, the effective
    number of patches as a share of all, 1 for an even map; evenness, the effective number of
    patches within the objects (what any mask covers by half or more) as a share of theirs, NaN
    where an image has none; to itself, the share of `[CLS]`'s attention that it keeps, which the
    other two leave out. Evenness says something only beside how much attention the objects get:
    an even map has 1. Raises what `walk` raises.

    >>> from crate_analysis import load_model
    >>> few = Reading(limit=2)
    >>> map_numbers(load_model("crate-creatures"), "creatures", [-2], few).shape
    (8, 7)
    """
    frames = []
    for batch in walk(model, data, layers, reading, edits):
        covered = [_covered(s.masks.any(0, keepdim=True), batch.grid) >= 0.5 for s in batch.samples]
        inside = torch.stack(covered)
        for state in batch.states:
            attention = state.attention().cpu()
            maps = cls_maps(attention, batch.grid)
            within = (maps * inside).clamp(min=torch.finfo(maps.dtype).tiny)
            evenness = effective_patches(within) / inside.sum((-2, -1)).clamp(min=1)
            values = {
                "width": effective_patches(maps) / maps[0, 0].numel(),
                "evenness": evenness.where(inside.flatten(1).any(1)[:, None], torch.nan),
                "to itself": attention[:, :, 0, 0],
            }
            image, head = np.indices(maps.shape[:2]).reshape(2, -1)
            at = {"layer": state.index, "image": np.array(batch.indices)[image], "head": head}
            flat = {name: value.numpy().ravel() for name, value in values.items()}
            frames.append(pd.DataFrame({"model": model.name, **at, **flat}))
    return pd.concat(frames, ignore_index=True)


def regrid(
    maps: Float[Tensor, "*b gh gw"], grid: tuple[int, int]
) -> Float[Tensor, "*b rows columns"]:
    """Maps on another grid over the same image, by area; their sums stay as they are.

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
