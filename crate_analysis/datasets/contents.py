"""Short digests of a data set: of what it shows, and of the state of its files."""

from __future__ import annotations

import os

from crate_analysis.names import digest

from .given import SampleList, as_samples
from .sample import Samples, UnreadableSampleError

LOOKED_AT = 16
"""How many of a data set's samples are looked at."""


def of_data(dataset: Samples) -> str:
    """Of what a data set shows and of the state of its files: another wherever a result may be."""
    return digest([of_content(dataset).encode(), str(of_files(dataset)).encode()])


def of_content(dataset: Samples) -> str:
    """Of the number of samples, the classes, and 16 samples with all that is known of them.

    The 16 are spread evenly; of a list all samples are looked at. It tells data sets, splits, seeds
    and sizes apart without reading all of a large one, and is the same on every machine; a change
    in a sample that is not among the 16 goes unseen, see `of_files`.
    """
    source = as_samples(dataset)
    count = len(source)
    looks = count if isinstance(source, SampleList) else min(LOOKED_AT, count)
    parts = [repr((count, tuple(source.classes))).encode()]
    for place in range(looks):
        try:
            sample = source[place * count // looks]
        except UnreadableSampleError:
            parts.append(b"unreadable")
            continue
        known = (sample.image.shape, sample.label, sample.mask_names, sample.part_of)
        parts.append(repr(known).encode())
        for plane in (sample.image, sample.masks, sample.void, sample.crowds):
            parts.append(plane.numpy().tobytes())
    return digest(parts)


def of_files(dataset: Samples) -> str | None:
    """Of the name, size and time of change of every file; None where there are none.

    A file that was damaged, repaired or exchanged is noticed without being read; a copy of the data
    set has the same digest where its times were copied, too.
    """
    paths = [os.fspath(path) for path in as_samples(dataset).files()]
    if not paths:
        return None
    base = len(os.path.commonpath(map(os.path.dirname, paths)))  # wherever the data set lies
    lines = []
    for path in paths:
        try:
            status = os.stat(path)
            lines.append(f"{path[base:]}\0{status.st_size}\0{status.st_mtime_ns}")
        except OSError:
            lines.append(f"{path[base:]}\0missing")
    return digest(["\n".join(lines).encode("utf-8", "surrogateescape")])
