"""From samples, one at a time, to batches that a model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from crate_analysis.datasets.sample import Sample, Samples


def batches(
    dataset: Samples,
    batch_size: int,
    limit: int | None = None,
    title: str = "",
    progress: bool = False,
) -> Iterator[tuple[int, list[Sample]]]:
    """The first `limit` samples (default: all) in lists of `batch_size`, each decoded when reached.

    Gives pairs: the index of a list's first sample, and the list. `progress` shows a bar named
    `title`. Raises ValueError for a data set without samples and for sizes under 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all")
    count = len(dataset) if limit is None else min(len(dataset), limit)
    if count == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    return _batches(dataset, batch_size, count, title, progress)


def _batches(
    dataset: Samples, batch_size: int, count: int, title: str, progress: bool
) -> Iterator[tuple[int, list[Sample]]]:
    with tqdm(total=count, desc=title, unit="picture", disable=not progress) as bar:
        for first in range(0, count, batch_size):
            samples = [dataset[index] for index in range(first, min(first + batch_size, count))]
            yield first, samples
            bar.update(len(samples))


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
