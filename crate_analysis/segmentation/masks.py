"""From attention maps to masks, and how well the best of them covers an object.

Yu et al. 2024 (arXiv 2308.16271), Sec. 3.1 and Fig. 4; Caron et al. 2021 (arXiv 2104.14294).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.checks import check_match

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
        `keep` of the image by entries.

    Only the order of a map's entries and their shares of its sum matter, not its scale. Raises
    ValueError for `keep` outside (0, 1], another rule, and entries that are NaN, infinite or
    negative.

    >>> import torch
    >>> attention_mask(torch.tensor([[0.5, 0.3], [0.1, 0.1]])).tolist()
    [[True, True], [False, False]]
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} must be a share in (0, 1]")
    if rule not in get_args(Rule):
        raise ValueError(f"rule={rule!r} is not one of {', '.join(get_args(Rule))}")
    if not (torch.isfinite(attention) & (attention >= 0)).all():
        raise ValueError(
            "attention holds NaN, infinite or negative entries; look for the layer that made them"
        )
    flat = attention.flatten(-2).double()
    flat = flat / flat.amax(-1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    order = flat.argsort(dim=-1, stable=True)  # ascending
    if rule == "mass":
        mass = flat.gather(-1, order).cumsum(-1)
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

    Raises ValueError where the grid does not divide the image.
    """
    rows, columns = masks.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(
            f"a grid of {rows} x {columns} patches does not divide {height} x {width} pixels"
        )
    tall = masks.repeat_interleave(height // rows, dim=-2)
    return tall.repeat_interleave(width // columns, dim=-1)


def head_iou(
    masks: Bool[Tensor, "b h H W"],
    truth: Bool[Tensor, "b m H W"],
    ignored: Bool[Tensor, "b H W"] | None = None,
) -> Float[Tensor, "b h m"]:
    """Intersection over union of each head's mask with each true mask, in [0, 1].

    Pixels that are `ignored` (default: none) count nowhere. A true mask without a pixel that
    counts has IoU NaN. Raises ValueError where the images differ in number or size.
    """
    check_match(masks=masks.any(1), truth=truth.any(1))  # of any number, none included
    if ignored is not None:
        check_match(masks=masks.any(1), ignored=ignored)
    counted = torch.ones_like(masks[:, :1]) if ignored is None else ~ignored[:, None]
    planes = (masks, truth & counted, counted)
    heads, true, pixels = (plane.flatten(2).float() for plane in planes)
    return overlap(heads, true, pixels)


def overlap(
    masks: Float[Tensor, "b h n"], truth: Float[Tensor, "b m n"], pixels: Float[Tensor, "b k n"]
) -> Float[Tensor, "b h m"]:
    """`head_iou` over n cells: `masks` is 0 or 1 for a whole cell.

    `truth` is the number of a cell's pixels in the true mask, `pixels` the number that count, for
    each mask (k = m) or for all alike (k = 1).
    """
    shared = masks @ truth.mT
    size = truth.sum(-1)[:, None]
    iou = shared / (masks @ pixels.mT + size - shared)
    return iou.where(size > 0, torch.nan)


def average_precision(
    scores: Float[Tensor, "b h n"],
    truth: Float[Tensor, "b m n"],
    pixels: Float[Tensor, "b n"] | Float[Tensor, "b k n"],
) -> Float[Tensor, "b h m"]:
    """How well each map ranks the pixels of each true mask before the others, in [0, 1].

    The step-wise area under the curve of precision P against recall R as the threshold passes the
    map's values, sum_k (R_k - R_{k-1}) P_k, as scikit-learn's `average_precision_score`. It needs
    no rule that turns a map into a mask. A flat map scores the share of the pixels that are in the
    mask. A true mask without a pixel has NaN.

    Parameters
    ----------
    scores : of any scale, one for each of n cells (patches), whose pixels are all tied.
    truth : the number of each cell's pixels that are in each mask.
    pixels : the number of each cell's pixels that count, for all masks or for each (k = m): all of
        them or, to ask how well a part is told from the rest of its animal, the animal's.

    Raises ValueError for NaN scores, and where a mask holds more of a cell than counts.

    >>> import torch
    >>> four = torch.ones(1, 4)
    >>> average_precision(torch.tensor([[[3.0, 2, 1, 0]]]), torch.tensor([[[1.0, 0, 1, 0]]]), four)
    tensor([[[0.8333]]])
    """
    counts = pixels[:, None] if pixels.ndim == 2 else pixels
    check_match(scores=scores.any(1), truth=truth.any(1), pixels=counts.any(1))
    if scores.isnan().any():
        raise ValueError("scores hold NaN entries; look for the layer that made them")
    if (truth > counts).any():
        raise ValueError("truth holds pixels that do not count; cut it to those that do")
    ranked, order = scores.sort(dim=-1, descending=True)
    # equal scores pass the threshold together: each cell's precision is that of its run's end
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[..., :-1] = ranked[..., :-1] != ranked[..., 1:]
    place = torch.arange(scores.shape[-1], device=scores.device)
    end = place.where(last, place[-1]).flip(-1).cummin(-1).values.flip(-1)

    def passed(cells: Tensor) -> tuple[Tensor, Tensor]:
        """The cells' numbers in order of rank, and their sum up to each run's end."""
        found = cells[:, None].expand_as(scores).gather(-1, order)
        return found, found.cumsum(-1).gather(-1, end)

    ends = [passed(cells)[1].clamp(min=torch.finfo(cells.dtype).tiny) for cells in counts.unbind(1)]
    precisions = scores.new_empty(*scores.shape[:2], truth.shape[1])
    for index, mask in enumerate(truth.unbind(1)):  # one at a time, or many need much memory
        hits, sums = passed(mask)
        precision = sums / ends[index if len(ends) > 1 else 0]
        precisions[..., index] = (hits * precision).sum(-1) / mask.sum(-1, keepdim=True)  # 0/0: NaN
    return precisions


def best_head_iou(
    masks: Bool[Tensor, "b h H W"],
    truth: Bool[Tensor, "b m H W"],
    ignored: Bool[Tensor, "b H W"] | None = None,
) -> tuple[Float[Tensor, "b m"], Int64[Tensor, "b m"]]:
    """For each true mask, the highest intersection over union that any head's mask reaches.

    Returns that IoU, in [0, 1], and which head it is (the first of equals). The choice of the head
    looks at the truth, so this is an upper bound on what a user without masks gets (Yu et al.
    2024, Sec. 3.1). What is `ignored`, a true mask without a pixel, and errors are as in
    `head_iou`.
    """
    iou, head = head_iou(masks, truth, ignored).max(1)
    return iou, head
