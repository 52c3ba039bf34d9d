"""From attention maps to masks, and how well the best of them covers an object.

Yu et al. 2024 (arXiv 2308.16271), Sec. 3.1 and Fig. 4; Caron et al. 2021 (arXiv 2104.14294).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Rule = Literal["mass", "entries"]


def attention_mask(
    attention: Float[Tensor, "*b gh gw"], keep: float = 0.6, rule: Rule = "mass"
) -> Bool[Tensor, "*b gh gw"]:
    """The patches that each map attends to most.

    Parameters
    ----------
    attention : non-negative maps.
    keep : a share in (0, 1].
    rule : `mass` keeps the fewest patches that leave out less than 1 - keep of the map's mass, as
        the DINO code does; `entries` keeps the share `keep` of the patches, as the paper's text
        says. They give quite different masks: a map with one bright spot is one spot by mass and
        `keep` of the picture by entries.

    Raises ValueError for `keep` outside (0, 1], another rule, or NaN.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} must be a share in (0, 1]")
    if rule not in get_args(Rule):
        raise ValueError(f"rule={rule!r} is not one of {', '.join(get_args(Rule))}")
    if attention.isnan().any():
        raise ValueError("attention holds NaN entries; look for the layer that made them")
    flat = attention.flatten(-2)
    order = flat.argsort(dim=-1, stable=True)  # ascending
    if rule == "mass":
        mass = flat.double().gather(-1, order).cumsum(-1)
        kept = mass > (1 - keep) * mass[..., -1:]
    else:
        count = round(keep * flat.shape[-1])
        kept = (torch.arange(flat.shape[-1], device=flat.device) >= flat.shape[-1] - count).expand(
            flat.shape
        )
    mask = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, order, kept)
    return mask.unflatten(-1, attention.shape[-2:])


def to_pixels(
    masks: Bool[Tensor, "*b gh gw"], height: int, width: int
) -> Bool[Tensor, "*b height width"]:
    """Masks on the patch grid at pixel resolution: every pixel takes its patch's value.

    Raises ValueError where the grid does not divide the picture.
    """
    rows, columns = masks.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(
            f"a grid of {rows} x {columns} patches does not divide {height} x {width} pixels"
        )
    tall = masks.repeat_interleave(height // rows, dim=-2)
    return tall.repeat_interleave(width // columns, dim=-1)


def head_iou(
    masks: Bool[Tensor, "b h H W"], truth: Bool[Tensor, "b m H W"]
) -> Float[Tensor, "b h m"]:
    """Intersection over union of each head's mask with each true mask, in [0, 1].

    A true mask without a pixel has IoU NaN.
    """
    return overlap(masks.flatten(2).float(), truth.flatten(2).float())


def overlap(
    masks: Float[Tensor, "b h n"], truth: Float[Tensor, "b m n"], cell: int = 1
) -> Float[Tensor, "b h m"]:
    """`head_iou` over n cells of `cell` pixels each.

    `masks` is 0 or 1 for a whole cell, `truth` the number of its pixels that are in the true mask.
    """
    shared = masks @ truth.mT
    size = truth.sum(-1)[:, None]
    iou = shared / (cell * masks.sum(-1)[:, :, None] + size - shared)
    return iou.where(size > 0, torch.nan)


def best_head_iou(
    masks: Bool[Tensor, "b h H W"], truth: Bool[Tensor, "b m H W"]
) -> tuple[Float[Tensor, "b m"], Int64[Tensor, "b m"]]:
    """For each true mask, the highest intersection over union that any head's mask reaches.

    Returns that IoU, in [0, 1], and which head it is (the first of equals). The choice of the head
    looks at the truth, so this is an upper bound on what a user without masks gets (Yu et al.
    2024, Sec. 3.1). A true mask without a pixel has IoU NaN.
    """
    iou, head = head_iou(masks, truth).max(1)
    return iou, head
