"""Measuring a data set part by part: over processes, and over restarts.

Parts are whole batches, so every picture is measured in the same company as in one go, and the
merged table equals the one of a single process, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from crate_analysis.datasets import Sample, SampleDataset
from crate_analysis.distributed import rank, wait_for_all, world_size
from crate_analysis.writing import write_text

Measurement = Callable[[SampleDataset], pd.DataFrame]
"""From pictures to a frame with a column `image`, the picture's index among them."""


class Window(SampleDataset):
    """Items `start` to before `stop` of a data set, counted from 0."""

    def __init__(self, dataset: SampleDataset, start: int, stop: int) -> None:
        self.dataset = dataset
        self.start = start
        self.stop = min(stop, len(dataset))
        self.name = f"{dataset.name}[{self.start}:{self.stop}]"
        self.split = dataset.split
        self.classes = dataset.classes
        self.image_size = dataset.image_size
        self.seed = dataset.seed

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.start + self.check(index)]


def measure_in_shards(
    measurement: Measurement, dataset: SampleDataset, table: Path, shard_size: int
) -> None:
    """Write a measurement of all pictures to `table`, a CSV file; every process calls this.

    Each process takes every so-manieth shard of `shard_size` pictures, which should be a multiple
    of the measurement's batch size. A shard's rows are written when they are measured, to a folder
    beside the table, and are not measured again by a later call; the folder goes when all are
    merged into the table. A table that is there already is left as it is, so its name must say
    all that it depends on.

    Raises ValueError for an empty data set and for a `shard_size` under 1.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be at least 1")
    if len(dataset) == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    shards = table.with_suffix(".shards")
    paths = {first: shards / f"{first:08d}.csv" for first in range(0, len(dataset), shard_size)}
    if not table.exists():
        shards.mkdir(parents=True, exist_ok=True)
        for first, path in list(paths.items())[rank() :: world_size()]:
            if not path.exists():
                frame = measurement(Window(dataset, first, first + shard_size))
                shifted = frame.assign(image=frame["image"] + first)
                write_text(path, shifted.to_csv(index=False))
    wait_for_all()
    if rank() == 0:
        if not table.exists():
            rows = [path.read_text(encoding="utf-8").split("\n", 1) for path in paths.values()]
            write_text(table, rows[0][0] + "\n" + "".join(body for _, body in rows))
        shutil.rmtree(shards, ignore_errors=True)
    wait_for_all()
