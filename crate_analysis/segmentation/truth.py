"""True masks counted patch by patch, so that maps of patches are scored exactly in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.datasets import Sample
from crate_analysis.segmentation.masks import overlap

Region = Literal["image", "object"]
"""Which pixels count: all of the image, or those of the object that a mask is a part of."""
Unit = Literal["object", "class"]
"""What is to be found: each mask by itself, or all masks of one name in an image as one."""
NO_MASKS = "the data set has no masks to compare with; take creatures, voc:ROOT or coco:ROOT"
NO_PARTS = (
    "no mask is part of another one here (Sample.part_of), so nothing lies within an object; "
    "take within=['image'], or a data set with parts, such as creatures"
)


class Truth:
    """The true masks of some images, laid out for comparison with maps on a patch grid.

    `indices` are what frames call the images, one a sample. A mask is known by its image and its
    place there; names may occur twice, and none is special. Which masks are parts of another one
    is said by `Sample.part_of`. A map has one value over all pixels of a patch, so the number of
    the truth's pixels in each patch is all that a score in pixels needs. Pixels of which nothing is
    decided (`Sample.ignored`) count nowhere, and a mask without any other has no rows.
    """

    def __init__(
        self, samples: Sequence[Sample], indices: Sequence[int], grid: tuple[int, int]
    ) -> None:
        height, width = samples[0].image.shape[-2:]
        shape = len(samples), max(len(sample.masks) for sample in samples)
        self.masks = torch.zeros(*shape, height, width, dtype=torch.bool)
        self.names = np.full(shape, "", dtype=object)
        self.wholes = np.full(shape, -1)
        """The place of the mask that each one is a part of, -1 for whole objects."""
        for row, sample in enumerate(samples):
            count = len(sample.masks)
            self.masks[row, :count] = sample.masks
            self.names[row, :count] = sample.mask_names
            self.wholes[row, :count] = [-1 if whole is None else whole for whole in sample.part_of]
        self.ignored = torch.stack([sample.ignored for sample in samples])
        counted = ~self.ignored[:, None]
        self.masks &= counted
        self.present = self.masks.flatten(2).any(2)
        """Which places hold a mask with a pixel that counts."""
        self.indices = np.asarray(indices)
        self.grid = grid
        self.pixels_of_patches = height * width / (grid[0] * grid[1])
        self.pixels = self._count(self.masks)
        """Of each mask, in each patch."""
        self.counted = self._count(counted)
        """The pixels that count, in each patch; of all masks alike."""

    def region(
        self, within: Region
    ) -> tuple[Bool[Tensor, "b m"], Float[Tensor, "b m n"], Float[Tensor, "b k n"]]:
        """What is scored within a region: which masks, their pixels there, and those that count.

        Within `image` that is every mask; within `object` only parts, each within the object that
        it is a part of.
        """
        if within == "image":
            return self.present, self.pixels, self.counted
        rows = torch.arange(len(self.masks))[:, None]
        wholes = torch.from_numpy(self.wholes)
        inside = self.masks & self.masks[rows, wholes.clamp(min=0)]
        scored = inside.flatten(2).any(2) & (wholes >= 0)
        return scored, self._count(inside), self.pixels[rows, wholes.clamp(min=0)]

    def compare(self, masks: Bool[Tensor, "b h gh gw"]) -> pd.DataFrame:
        """A row for each image, head and true mask: image, place, mask, is_part, head, iou."""
        iou = overlap(masks.flatten(2).float(), self.pixels, self.counted)
        return self.rows(self.present, iou=iou)

    def best_head_iou(self, masks: Bool[Tensor, "b h gh gw"]) -> pd.DataFrame:
        """A row for each image: image, iou, that of the best head, mean over its whole objects.

        This is what the paper's mIoU is the mean of (Yu et al. 2024, Sec. 3.1). An image without a
        whole object has no row.
        """
        return best_heads(self.compare(masks))

    def rows(self, scored: Bool[Tensor, "b m"], **values: Float[Tensor, "b h m"]) -> pd.DataFrame:
        """Values of each head and mask as a frame, for the masks that are `scored`."""
        heads = next(iter(values.values())).shape[1]
        image, head, place = (
            axis.numpy() for axis in scored[:, None].expand(-1, heads, -1).nonzero().unbind(1)
        )
        return pd.DataFrame(
            {
                "image": self.indices[image],
                "place": place,
                "mask": self.names[image, place],
                "is_part": self.wholes[image, place] >= 0,
                "head": head,
                **{name: each.numpy()[image, head, place] for name, each in values.items()},
            }
        )

    def _count(self, masks: Bool[Tensor, "b m H W"]) -> Float[Tensor, "b m n"]:
        cells = masks.unflatten(-2, (self.grid[0], -1)).unflatten(-1, (self.grid[1], -1))
        return cells.sum((-3, -1)).flatten(2).float()


MASK = ["place", "mask", "is_part", "head"]
"""The columns that say of which mask and head a row is."""
VALUES = ["share", "iou", "attention", "average_precision"]


def best_heads(scores: pd.DataFrame, value: str = "iou") -> pd.DataFrame:
    """For each image the best head's value, mean over the image's whole objects.

    The paper's mIoU is the mean of this over images (Yu et al. 2024, Sec. 3.1): for each true mask
    the head that covers it best, which needs the truth to be known; then the mean over the masks
    of an image. Parts of objects do not count. Maps that were drawn several times (column `draw`)
    are chosen among in each draw, and the draws averaged.

    `scores` is a frame of `attention_iou`, `head_scores` or `scores_with_rivals`. Returns its
    columns but for those of masks, heads and draws, one row an image (and model, layer, ...), with
    the column `value`. Raises ValueError where there is no whole object.

    >>> import pandas as pd
    >>> two_heads = {"image": 0, "place": 0, "is_part": False, "head": [0, 1], "iou": [0.2, 0.6]}
    >>> best_heads(pd.DataFrame(two_heads))
       image  iou
    0      0  0.6
    """
    wholes = scores[~scores.is_part.astype(bool)]
    if wholes.empty:
        raise ValueError("there is no whole object among the scores, only parts or nothing")
    keys = [name for name in scores if name not in [*MASK, *VALUES, "draw"]]
    draws = ["draw"] if "draw" in scores else []
    best = wholes.groupby([*keys, *draws, "place"], sort=False, dropna=False)[value].max()
    means = best.groupby([*keys, *draws], sort=False, dropna=False).mean()
    return means.groupby(keys, sort=False, dropna=False).mean().reset_index()


def by_class(sample: Sample) -> Sample:
    """The sample with all masks of one name as one: the union of them, at the first one's place.

    Parts of objects of one name are joined likewise, apart from whole objects that are called as
    they are.
    """
    keys: dict[int, tuple[str, ...]] = {}

    def key(place: int) -> tuple[str, ...]:
        if place not in keys:
            whole = sample.part_of[place]
            keys[place] = (sample.mask_names[place], *(key(whole) if whole is not None else ()))
        return keys[place]

    groups: dict[tuple[str, ...], list[int]] = {}
    for place in range(len(sample.masks)):
        groups.setdefault(key(place), []).append(place)
    new = {name: place for place, name in enumerate(groups)}
    masks = [sample.masks[places].any(0) for places in groups.values()]
    return replace(
        sample,
        masks=torch.stack(masks) if masks else sample.masks,
        mask_names=tuple(name[0] for name in groups),
        part_of=tuple(new.get(name[1:]) for name in groups),
    )


def undecided_as_background(sample: Sample) -> Sample:
    """The sample with void pixels and crowds as background: a prediction there is wrong."""
    return replace(
        sample, void=torch.zeros_like(sample.void), crowds=torch.zeros_like(sample.crowds[:0])
    )
