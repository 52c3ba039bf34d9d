"""Measuring a data set part by part: over processes, and over restarts.

Parts are whole batches, so every picture is measured in the same company as in one go, and the
merged table equals the one of a single process, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from crate_analysis.datasets import Sample, SampleDataset
from crate_analysis.datasets.batches import (
    AbsentError,
    NoneReadableError,
    left_out_gathered,
    report_left_out,
)
from crate_analysis.distributed import rank, wait_for_all, world_size
from crate_analysis.writing import write_text

Measurement = Callable[[SampleDataset], pd.DataFrame]
"""From pictures to a frame with a column `image`, the picture's index among them.

It may raise `NoneReadableError` or `AbsentError`: other shards may have what this one lacks.
"""


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
    measurement: Measurement,
    dataset: SampleDataset,
    table: Path,
    shard_size: int,
    record: Mapping[str, Any],
) -> None:
    """Write a measurement of all pictures to `table`, a CSV file; every process calls this.

    Each process takes every so-manieth shard of `shard_size` pictures, which should be a multiple
    of the measurement's batch size. A shard's rows are written when they are measured, to a folder
    beside the table, and are not measured again by a later call with the same `shard_size`; the
    folder goes when all are merged into the table. A table that is there already is left as it is,
    so its name must say all that it depends on. Two runs of the same may go on at once, though
    each measures what the other has not written yet.

    Beside the table a `.json` file holds `record` and, as `left_out`, a line for each picture that
    could not be read; a `LeftOutWarning` counts and lists them, of a finished table as well.

    Raises ValueError for an empty data set, for a `shard_size` under 1, and where no picture can be
    read or what the measurement needs is in none of the shards.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be at least 1")
    if len(dataset) == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    note, shards = table.with_suffix(".json"), table.with_suffix(".shards")
    starts = range(0, len(dataset), shard_size)
    paths = {first: shards / f"{shard_size}-{first:08d}.json" for first in starts}

    def is_finished() -> bool:
        return table.exists() and note.exists()

    @contextmanager
    def shards_needed() -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:  # another run of the same was first, and has cleared up
            if not is_finished():
                raise

    with shards_needed():
        for first, path in list(paths.items())[rank() :: world_size()]:
            if not (path.exists() or is_finished()):
                part = _measure(measurement, Window(dataset, first, first + shard_size))
                shards.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(part))
    wait_for_all()
    if rank() == 0:
        with shards_needed():
            if not is_finished():
                texts = [path.read_text(encoding="utf-8") for path in paths.values()]
                text, left_out = _merge([json.loads(text) for text in texts])
                write_text(note, json.dumps({**record, "left_out": left_out}, indent=2) + "\n")
                write_text(table, text)
        shutil.rmtree(shards, ignore_errors=True)
        report_left_out(json.loads(note.read_text(encoding="utf-8"))["left_out"], len(dataset))
    wait_for_all()


def _measure(measurement: Measurement, part: Window) -> dict[str, Any]:
    """A shard, JSON-ready: CSV text, what was asked for and is not here, pictures left out."""
    absent: dict[str, str] = {}
    with left_out_gathered() as left_out:
        try:
            frame = measurement(part)
        except NoneReadableError as error:
            return {"header": None, "rows": "", "absent": {}, "left_out": error.reasons}
        except AbsentError as error:
            frame, absent = error.frame, error.absent
    text = frame.assign(image=frame["image"] + part.start).to_csv(index=False)
    header, rows = text.split("\n", 1)
    return {"header": header, "rows": rows, "absent": absent, "left_out": left_out}


def _merge(parts: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """The table's text, and the pictures left out."""
    left_out = [reason for part in parts for reason in part["left_out"]]
    read = [part for part in parts if part["header"]]
    if not read:
        raise NoneReadableError(left_out)
    for name, message in read[0]["absent"].items():
        if all(name in part["absent"] for part in read):
            raise ValueError(message)
    return read[0]["header"] + "\n" + "".join(part["rows"] for part in read), left_out
