"""From samples, one at a time, to batches that a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from crate_analysis.datasets.sample import Sample, SampleDataset


def batches(
    dataset: SampleDataset, batch_size: int, limit: int | None = None
) -> Iterator[list[Sample]]:
    """The first `limit` samples (default: all) in lists of `batch_size`, each decoded when reached.

    Raises ValueError for a data set without samples and for sizes under 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all")
    count = len(dataset)
    if count == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    count = count if limit is None else min(count, limit)
    return (
        [dataset[index] for index in range(first, min(first + batch_size, count))]
        for first in range(0, count, batch_size)
    )


def stack_images(samples: Sequence[Sample]) -> UInt8[Tensor, "b 3 H W"]:
    """The pictures of some samples as one tensor. Raises ValueError where their sizes differ."""
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            sizes = [f"{s.image.shape[1]} x {s.image.shape[2]}" for s in (first, sample)]
            raise ValueError(
                f"{first.path} is {sizes[0]} pixels and {sample.path} is {sizes[1]}; "
                "load the data set with image_size=... to batch its pictures, or take batch_size=1"
            )
    return torch.stack([sample.image for sample in samples])
