"""True masks counted patch by patch, so that maps of patches are scored exactly in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.datasets import Sample
from crate_analysis.segmentation.masks import average_precision, overlap

PICTURE = "picture"
"""What a frame calls the region of all pixels."""
NO_MASKS = "the data set has no masks to compare with; take creatures, voc:ROOT or coco:ROOT"


class Truth:
    """The true masks of some pictures, laid out for comparison with maps on a patch grid.

    `indices` are what the frames call the pictures, one a sample. A map has one value over all
    pixels of a patch, so the number of the truth's pixels in each patch is all that a score in
    pixels needs. Pixels of which nothing is decided (`Sample.ignored`) count nowhere, and a mask
    without any other has no rows. `within` names masks inside of which maps are scored once more;
    pixels outside do not count there.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        indices: Sequence[int],
        grid: tuple[int, int],
        within: Sequence[str] = (),
    ) -> None:
        height, width = samples[0].image.shape[-2:]
        planes = max(len(sample.masks) for sample in samples)
        self.masks = torch.zeros(len(samples), planes, height, width, dtype=torch.bool)
        self.names = np.full((len(samples), planes), "", dtype=object)
        for index, sample in enumerate(samples):
            self.masks[index, : len(sample.masks)] = sample.masks
            self.names[index, : len(sample.masks)] = sample.mask_names
        self.ignored = torch.stack([sample.ignored for sample in samples])
        counted = ~self.ignored[:, None]
        self.masks &= counted
        self.names[~self.masks.flatten(2).any(2).numpy()] = ""
        self.indices = np.asarray(indices)
        self.grid = grid
        self.pixels = self._count(self.masks)
        self.regions = {PICTURE: (self._count(counted)[:, 0], self.pixels)}
        for name in within:
            region = self.masks & torch.from_numpy(self.names == name)[..., None, None]
            region = region.any(1, keepdim=True)
            self.regions[name] = (self._count(region)[:, 0], self._count(self.masks & region))

    def _count(self, masks: Bool[Tensor, "b m H W"]) -> Float[Tensor, "b m n"]:
        cells = masks.unflatten(-2, (self.grid[0], -1)).unflatten(-1, (self.grid[1], -1))
        return cells.sum((-3, -1)).flatten(2).float()

    def compare(self, masks: Bool[Tensor, "b h gh gw"]) -> pd.DataFrame:
        """A row for each picture, head and true mask: image, mask, plane, head, iou."""
        everywhere, _ = self.regions[PICTURE]
        return self._rows(iou=overlap(masks.flatten(2).float(), self.pixels, everywhere))

    def best_head_iou(
        self, masks: Bool[Tensor, "b h gh gw"], leave_out: Sequence[str] = ()
    ) -> pd.DataFrame:
        """A row for each picture: image, iou, that of the best head, mean over its true masks.

        This is what the paper's mIoU is the mean of (Yu et al. 2024, Sec. 3.1). Masks named in
        `leave_out` do not count; a picture without any other has no row.
        """
        found = self.compare(masks)
        best = found[~found["mask"].isin(leave_out)].groupby(["image", "mask"]).iou.max()
        return best.groupby("image").mean().reset_index()

    def score(
        self,
        maps: Float[Tensor, "b h gh gw"],
        masks: Bool[Tensor, "b h gh gw"],
        regions: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """`compare`'s rows with within, share and average_precision, for all or some regions.

        A mask has no rows where none of it counts, and none within the mask of its own name.
        """
        found = []
        for name in regions or self.regions:
            pixels, truth = self.regions[name]
            share = truth.sum(-1) / pixels.sum(-1, keepdim=True)
            rows = self._rows(
                share=share[:, None].expand(-1, maps.shape[1], -1),
                iou=overlap(masks.flatten(2).float(), truth, pixels),
                average_precision=average_precision(maps.flatten(2), truth, pixels),
            )
            found.append(rows[rows["mask"] != name].dropna().assign(within=name))
        return pd.concat(found)

    def _rows(self, **values: Float[Tensor, "b h m"]) -> pd.DataFrame:
        image, head, plane = np.indices(next(iter(values.values())).shape).reshape(3, -1)
        frame = pd.DataFrame(
            {
                "image": self.indices[image],
                "mask": self.names[image, plane],
                "plane": plane,
                "head": head,
                **{name: value.numpy().ravel() for name, value in values.items()},
            }
        )
        return frame[frame["mask"] != ""]
