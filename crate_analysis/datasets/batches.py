"""From samples, one at a time, to batches that a model takes; damaged files are left out.

Other processes read where they are asked to, through torch's `DataLoader`.
"""

from __future__ import annotations

import pickle
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import pandas as pd
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crate_analysis.bars import bar
from crate_analysis.datasets.given import SampleList, as_samples
from crate_analysis.datasets.sample import Sample, SampleDataset, Samples, UnreadableSampleError
from crate_analysis.distributed import end_with_parent, process_context


class LeftOutWarning(UserWarning):
    """Images are missing from what was measured: `reasons`, a line for each, out of `count`."""

    def __init__(self, reasons: Sequence[str], count: int) -> None:
        listed = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(f"{len(reasons)} of {count} images were left out:{listed}")
        self.reasons = list(reasons)
        self.count = count


class NoneReadableError(ValueError):
    """No image at all can be read: `reasons`, a line for each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        count = len(reasons)
        super().__init__(f"none of the {count} images can be read; the first: {reasons[0]}")
        self.reasons = list(reasons)


class AbsentError(ValueError):
    """Things that were asked for are in none of these images, but may be in others.

    `absent` says of each, by its name, what to do about it; `frame` is what was measured.
    """

    def __init__(self, absent: Mapping[str, str], frame: pd.DataFrame) -> None:
        super().__init__(next(iter(absent.values())))
        self.absent = dict(absent)
        self.frame = frame


def batches(
    dataset: Samples,
    batch_size: int,
    limit: int | None = None,
    title: str = "",
    progress: bool = False,
    workers: int = 0,
) -> Iterator[tuple[list[int], list[Sample]]]:
    """The first `limit` samples (default: all) in lists of `batch_size`, each decoded when reached.

    `dataset` is whatever `as_samples` takes. Gives pairs of lists: the samples, and before them the
    index of each in the data set. A sample
    whose files are missing or damaged is left out, its batch is one shorter, and a
    `LeftOutWarning` at the end counts and lists them. `progress` shows a bar named `title`.

    `workers` processes read up to a batch ahead, 0 for this process when a batch is reached; what
    comes back is the same. Each gets a copy of the data set, whose class must be in a module, and
    a script that asks for them needs its ``if __name__ == "__main__"``. A list holds its samples
    already, and is not sent away.

    Raises ValueError for a data set without samples that can be read, for sizes under 1 and for
    `workers` under 0.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1, or None for all")
    if workers < 0:
        raise ValueError(f"workers={workers} must be at least 0")
    source = as_samples(dataset)
    count = len(source) if limit is None else min(len(source), limit)
    if count == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    return _batches(source, batch_size, count, title, progress, workers)


def read_samples(dataset: Samples, workers: int = 0) -> list[Sample]:
    """All samples of a data set but those whose files are missing or damaged, which are listed.

    `workers` processes read, see `batches`. Raises ValueError where none is left.
    """
    return [sample for _, samples in batches(dataset, 32, workers=workers) for sample in samples]


def attempts(
    dataset: SampleDataset, indices: range, workers: int, ahead: int
) -> Iterator[Sample | UnreadableSampleError]:
    """The samples of these indices in order, and in place of a damaged one what is wrong with it.

    `workers` processes, none for 0, read about `ahead` samples before they are asked for.
    """
    if workers == 0 or isinstance(dataset, SampleList):
        for index in indices:
            yield _attempt(dataset, index)
        return
    loader = DataLoader(
        _Attempts(dataset),
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        prefetch_factor=max(2, -(-ahead // workers)),
        multiprocessing_context=process_context(),
        worker_init_fn=end_with_parent,
        generator=torch.Generator(),  # the seed that it draws is not of the caller's numbers
    )
    for packed in loader:
        found = pickle.loads(packed)
        if isinstance(found, Exception) and not isinstance(found, UnreadableSampleError):
            raise found
        yield found


def _attempt(dataset: SampleDataset, index: int) -> Sample | UnreadableSampleError:
    try:
        return dataset[index]
    except UnreadableSampleError as error:
        return error


class _Attempts(Dataset[bytes]):
    """What a process sends back: bytes, since each tensor on its own would hold a file open."""

    def __init__(self, dataset: SampleDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> bytes:
        found: Sample | Exception
        try:
            found = _attempt(self.dataset, index)
        except Exception as error:  # to be raised where the samples are wanted
            error.add_note(f"In a process that reads images:\n{traceback.format_exc()}")
            found = error
        return pickle.dumps(found)


def _batches(
    dataset: SampleDataset, batch_size: int, count: int, title: str, progress: bool, workers: int
) -> Iterator[tuple[list[int], list[Sample]]]:
    left_out: list[str] = []
    tries = attempts(dataset, range(count), workers, batch_size)
    with bar(title=title, total=count, shown=progress) as tried:
        for first in range(0, count, batch_size):
            indices, samples = [], []
            for index, found in enumerate(islice(tries, batch_size), first):
                if isinstance(found, UnreadableSampleError):
                    left_out.append(str(found))
                else:
                    indices.append(index)
                    samples.append(found)
                tried.update()
            if samples:
                yield indices, samples
    report_left_out(left_out, count)


def report_left_out(reasons: Sequence[str], count: int) -> None:
    """Warn of the images, of `count`, that were left out; NoneReadableError if all were."""
    if reasons and len(reasons) == count:
        raise NoneReadableError(reasons)
    if reasons:
        warnings.warn(LeftOutWarning(reasons, count), stacklevel=3)


@contextmanager
def left_out_gathered() -> Iterator[list[str]]:
    """Within it no `LeftOutWarning` is shown; behind it, the list holds what they said."""
    reasons: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeftOutWarning)
        yield reasons
    for one in caught:
        if isinstance(one.message, LeftOutWarning):
            reasons += one.message.reasons
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def stack_images(samples: Sequence[Sample]) -> UInt8[Tensor, "b 3 H W"]:
    """The images of some samples as one tensor. Raises ValueError where their sizes differ."""
    first = samples[0]
    for sample in samples:
        if sample.image.shape != first.image.shape:
            sizes = [f"{s.image.shape[1]} x {s.image.shape[2]}" for s in (first, sample)]
            raise ValueError(
                f"{first.path} is {sizes[0]} pixels and {sample.path} is {sizes[1]}; "
                "load the data set with image_size=... to batch its images, or take batch_size=1"
            )
    return torch.stack([sample.image for sample in samples])
