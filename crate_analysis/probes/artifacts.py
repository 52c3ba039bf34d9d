"""Artifact tokens: patches of high norm that hold no content of their own, and draw attention.

Darcet et al. 2024 (arXiv 2309.16588) find them in large ViTs, DINOv2's among them, in even regions
of an image, and show that register tokens take over their part. They are the rival explanation of
maps that scatter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.datasets import Samples
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.walk import READING, Reading, walk

FACTOR = 3.0
"""From how many times the median norm of its image's patches on a patch is an outlier."""


def outlier_patches(tokens: Float[Tensor, "b n d"], factor: float = FACTOR) -> Bool[Tensor, "b n"]:
    """Patches whose norm is more than `factor` times the median norm of their image's patches.

    Darcet et al. 2024 set the cut at a fixed norm, which they read off the two humps of DINOv2's
    norms (about 50 to 100 and above 150). Norms of other networks are of another scale, so it is
    relative here, and the same for all. Raises ValueError for a factor of 1 or less.

    >>> norms = torch.tensor([1.0, 1.0, 2.0, 1.0, 9.0])
    >>> outlier_patches(norms[None, :, None]).tolist()
    [[False, False, False, False, True]]
    """
    if factor <= 1:
        raise ValueError(f"factor={factor} must be above 1, else half of the patches are outliers")
    norms = tokens.norm(dim=-1)
    return norms > factor * norms.quantile(0.5, dim=-1, keepdim=True)


def longest_patches(tokens: Float[Tensor, "b n d"], share: float) -> Bool[Tensor, "b n"]:
    """In each image the patches of largest norm, `share` of them and at least one, outliers or not.

    Raises ValueError for a share outside (0, 1).

    >>> longest_patches(torch.tensor([1.0, 1.0, 2.0, 1.0])[None, :, None], 0.02).tolist()
    [[False, False, True, False]]
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share} must lie between 0 and 1")
    norms = tokens.norm(dim=-1)
    longest = norms.topk(max(1, round(share * norms.shape[1])), dim=-1).indices
    return torch.zeros_like(norms, dtype=torch.bool).scatter(1, longest, True)


def without_patches(
    maps: Float[Tensor, "b h gh gw"], left_out: Bool[Tensor, "b n"]
) -> Float[Tensor, "b h gh gw"]:
    """Maps with some patches' attention set to 0, and the rest scaled to the sum it had before.

    What a map would show if these had not drawn attention. A map that lies on them alone is left
    with 0.

    >>> maps = torch.tensor([[[[0.5, 0.1], [0.1, 0.1]]]])
    >>> kept = without_patches(maps, torch.tensor([[True, False, False, False]]))
    >>> round(kept[0, 0, 1, 1].item() * 3, 3)
    0.8
    """
    kept = maps * ~left_out.unflatten(-1, maps.shape[-2:])[:, None]
    left = kept.sum((-2, -1), keepdim=True)
    return kept * (maps.sum((-2, -1), keepdim=True) / left.clamp(min=torch.finfo(maps.dtype).tiny))


@torch.inference_mode()
def artifact_frame(
    model: UnrolledModel,
    data: Samples,
    factor: float = FACTOR,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
) -> pd.DataFrame:
    """Norms of the patch tokens that each layer hands on, outliers, and what attention gives them.

    Parameters
    ----------
    model, data, layers, reading : as `walk` takes them.
    factor : of `outlier_patches`, of the layer's output Z^{l+1}. The attention that is read beside
        it is that of `[CLS]` in the same layer, mean over heads, as a share of what it gives to
        patches; so the outliers that a layer makes and those that it was given count alike.

    Returns a frame, a row for each layer and image: model, layer (from 0), image, median and
    largest (norm), ratio (largest by median), outliers (share of the patches), attention (share of
    `[CLS]`'s attention to patches that falls on them), drawn (`attention` by `outliers`: how many
    times the attention of an even map; NaN without outliers), border (share of the outliers that
    lie on the border of the image; NaN without), expected border (share of all patches that do),
    registers (norm of the largest register by the median; NaN without registers).

    >>> from crate_analysis import load_model
    >>> frame = artifact_frame(load_model("crate-creatures"), "creatures", reading=Reading(limit=2))
    >>> len(frame), bool((frame.ratio >= 1).all())
    (12, True)
    """
    parts = []
    for batch in walk(model, data, layers, reading):
        border = _border(batch.grid)
        for state in batch.states:
            tokens = state.output[:, state.patches]
            norms = tokens.norm(dim=-1).cpu()
            outliers = outlier_patches(tokens, factor).cpu()
            maps = cls_maps(state.attention(), batch.grid).cpu().mean(1).flatten(1)
            attention = (maps * outliers).sum(1) / maps.sum(1)
            share = outliers.float().mean(1)
            count = outliers.sum(1)
            median = norms.quantile(0.5, dim=1)
            registers = state.output[:, 1 : state.patches.start].norm(dim=-1).cpu()
            largest = norms.max(1).values
            none = torch.full_like(median, torch.nan)
            columns = {
                "median": median,
                "largest": largest,
                "ratio": largest / median,
                "outliers": share,
                "attention": attention,
                "drawn": torch.where(count > 0, attention / share, torch.nan),
                "border": torch.where(count > 0, (outliers & border).sum(1) / count, torch.nan),
                "expected border": torch.full_like(median, border.float().mean().item()),
                "registers": registers.max(1).values / median if registers.shape[1] else none,
            }
            values = {name: column.numpy().astype(np.float64) for name, column in columns.items()}
            keys = {"model": model.name, "layer": state.index, "image": batch.indices}
            parts.append(pd.DataFrame({**keys, **values}))
    return pd.concat(parts, ignore_index=True)


def _border(grid: tuple[int, int]) -> Bool[Tensor, " n"]:
    """Patches on the border of the image, row by row."""
    border = torch.ones(grid, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return border.flatten()
