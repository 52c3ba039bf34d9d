"""From samples, one at a time, to batches that a model takes; damaged files are left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from crate_analysis.datasets.sample import Sample, Samples, UnreadableSampleError


def batches(
    dataset: Samples,
    batch_size: int,
    limit: int | None = None,
    title: str = "",
    progress: bool = False,
) -> Iterator[tuple[list[int], list[Sample]]]:
    """The first `limit` samples (default: all) in lists of `batch_size`, each decoded when reached.

    Gives pairs of lists: the samples, and before them the index of each in the data set. A sample
    whose files are missing or damaged is left out, its batch is one shorter, and a warning at the
    end counts and lists them. `progress` shows a bar named `title`. Raises ValueError for a data
    set without samples that can be read, and for sizes under 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all")
    count = len(dataset) if limit is None else min(len(dataset), limit)
    if count == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    return _batches(dataset, batch_size, count, title, progress)


def read_samples(dataset: Samples) -> list[Sample]:
    """All samples of a data set but those whose files are missing or damaged, which are listed.

    Raises ValueError where none is left.
    """
    return [sample for _, samples in batches(dataset, 1) for sample in samples]


def _batches(
    dataset: Samples, batch_size: int, count: int, title: str, progress: bool
) -> Iterator[tuple[list[int], list[Sample]]]:
    left_out: list[str] = []
    with tqdm(total=count, desc=title, unit="picture", disable=not progress) as bar:
        for first in range(0, count, batch_size):
            indices, samples = [], []
            for index in range(first, min(first + batch_size, count)):
                try:
                    samples.append(dataset[index])
                    indices.append(index)
                except UnreadableSampleError as error:
                    left_out.append(str(error))
                bar.update()
            if samples:
                yield indices, samples
    if len(left_out) == count:
        raise ValueError(f"none of the {count} pictures can be read; the first: {left_out[0]}")
    if left_out:
        warn_of_left_out(left_out, count)


def warn_of_left_out(reasons: Sequence[str], count: int) -> None:
    """Count and list the pictures, of `count`, that are missing from what was measured."""
    listed = "".join(f"\n  {reason}" for reason in reasons)
    warnings.warn(f"{len(reasons)} of {count} pictures were left out:{listed}", stacklevel=3)


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
