"""Every head of every layer against every true mask of a data set, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from crate_analysis.datasets import Sample, SampleDataset, batches, stack_images
from crate_analysis.models import UnrolledModel
from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling, random_attention
from crate_analysis.segmentation.masks import Rule, attention_mask, overlap

COLUMNS = ["model", "layer", "rule", "image", "mask", "head", "iou"]


@torch.inference_mode()
def attention_iou(
    model: UnrolledModel,
    dataset: SampleDataset,
    keep: float = 0.6,
    rules: Sequence[Rule] = ("mass", "entries"),
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """IoU of each head's `[CLS]` attention mask with each true mask, for every layer and picture.

    Parameters
    ----------
    dataset : pictures of one size, which the patch size divides, with masks.
    keep, rules : how a map becomes a mask, see `attention_mask`.

    Returns a tidy frame: model, layer (from 0), rule, image (index in the data set), mask (its
    name), head (from 0), iou in [0, 1]. Best-head IoU is the maximum over `head`; the paper's mIoU
    is its mean over the masks of an image, then over images (Yu et al. 2024, Sec. 3.1).

    Raises ValueError for an empty data set and for one without masks.
    """
    device = next(model.parameters()).device
    parts: list[pd.DataFrame] = []
    for first, samples in batches(dataset, batch_size, limit, model.name, progress):
        images = model.normalize(stack_images(samples).to(device))
        grid = model.patch_grid(images)
        truth = _Truth(samples, first, grid)
        for state in model.unroll(images):
            maps = state.attention()[:, :, 0, 1:].unflatten(-1, grid).cpu()
            for rule in rules:
                masks = attention_mask(maps, keep, rule)
                found = truth.compare(masks)
                parts.append(found.assign(model=model.name, layer=state.index, rule=rule))
    return _frame(parts)


def baseline_iou(
    dataset: SampleDataset,
    patch_size: int,
    heads: int,
    keep: float = 0.6,
    rules: Sequence[Rule] = ("mass", "entries"),
    batch_size: int = 32,
    limit: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What maps that know nothing of the picture score, and the most that patches allow.

    The same frame as `attention_iou`'s, with layer -1 and for model: `random maps` (as many as
    there are heads, so that the best of them is as lucky as the best head), `centre prior` (one
    Gaussian in the middle), and `patch ceiling` (the truth itself on the patch grid, no rule).
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[pd.DataFrame] = []
    for first, samples in batches(dataset, batch_size, limit):
        height, width = stack_images(samples).shape[-2:]
        grid = (height // patch_size, width // patch_size)
        truth = _Truth(samples, first, grid)
        noise = random_attention((len(samples), heads, *grid), generator)
        centre = centre_attention(*grid).expand(len(samples), 1, *grid)
        ceiling = truth.compare(patch_ceiling(truth.masks, patch_size))
        ceiling = ceiling[ceiling["head"] == ceiling["plane"]].assign(model="patch ceiling")
        for rule in rules:
            for name, maps in (("random maps", noise), ("centre prior", centre)):
                found = truth.compare(attention_mask(maps, keep, rule))
                parts.append(found.assign(model=name, rule=rule))
            parts.append(ceiling.assign(rule=rule))
    return _frame([part.assign(layer=-1) for part in parts])


class _Truth:
    """The true masks of some pictures, laid out for comparison with masks on a patch grid."""

    def __init__(self, samples: Sequence[Sample], first: int, grid: tuple[int, int]) -> None:
        height, width = samples[0].image.shape[-2:]
        planes = max(len(sample.masks) for sample in samples)
        self.masks = torch.zeros(len(samples), planes, height, width, dtype=torch.bool)
        self.names = np.full((len(samples), planes), "", dtype=object)
        for index, sample in enumerate(samples):
            self.masks[index, : len(sample.masks)] = sample.masks
            self.names[index, : len(sample.masks)] = sample.mask_names
        self.first = first
        cells = self.masks.unflatten(-2, (grid[0], -1)).unflatten(-1, (grid[1], -1))
        self.pixels = cells.sum((-3, -1)).flatten(2).float()  # of each mask in each patch
        self.patch_pixels = cells.shape[-3] * cells.shape[-1]

    def compare(self, masks: Bool[Tensor, "b h gh gw"]) -> pd.DataFrame:
        """A row for each picture, head and true mask: image, mask, plane, head, iou.

        A patch mask is the same over all pixels of a patch, so counting the truth's pixels patch
        by patch gives the IoU in pixels.
        """
        iou = overlap(masks.flatten(2).float(), self.pixels, self.patch_pixels)
        image, head, plane = (axis.ravel() for axis in np.indices(iou.shape))
        frame = pd.DataFrame(
            {
                "image": self.first + image,
                "mask": self.names[image, plane],
                "plane": plane,
                "head": head,
                "iou": iou.numpy().ravel(),
            }
        )
        return frame[frame["mask"] != ""]


def _frame(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    frame = pd.concat(parts, ignore_index=True)[COLUMNS]
    if frame.empty:
        raise ValueError(
            "the data set has no masks to compare with; take creatures, voc:ROOT or coco:ROOT"
        )
    return frame
