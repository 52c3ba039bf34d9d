"""Measuring a data set part by part: over processes, and over restarts.

Parts are whole batches, so every image is measured in the same company as in one go, and the
merged table equals the one of a single process, byte for byte.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from crate_analysis.datasets import Sample, SampleDataset, files
from crate_analysis.datasets.batches import (
    AbsentError,
    NoneReadableError,
    left_out_gathered,
    report_left_out,
)
from crate_analysis.distributed import rank, wait_for_all, world_size
from crate_analysis.names import digest
from crate_analysis.writing import DamagedFileError, read_sealed, seal, write_text

Measurement = Callable[[SampleDataset], pd.DataFrame]
"""From images to a frame with a column `image`, the image's index among them.

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

    def files(self) -> Iterable[Path]:
        """Those of the whole data set."""
        return self.dataset.files()

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.start + self.check(index)]


def measure_in_shards(
    measurement: Measurement,
    dataset: SampleDataset,
    table: Path,
    shard_size: int,
    record: Mapping[str, Any],
) -> None:
    """Write a measurement of all images to `table`, a CSV file; every process calls this.

    Each of k processes takes every k-th shard of `shard_size` images, which should be a multiple
    of the measurement's batch size. A shard's rows are written when they are measured, to a folder
    beside the table, and are not measured again by a later call with the same `shard_size`, unless
    they are not as they were written; the folder is removed when all are merged into the table. A
    table that is there already is left as it is, so its name must say all that it depends on. Two
    runs of the same may go on at once, though each measures what the other has not written yet.

    Beside the table a `.json` file holds `record`, a digest of the table and, as `left_out`, a line
    for each image that could not be read; a `LeftOutWarning` counts and lists them, of a finished
    table as well.

    Raises ValueError for an empty data set, for a `shard_size` under 1, and where no image can be
    read or what the measurement needs is in none of the shards; DamagedFileError for a finished
    table that is not as it was written or is another record's.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size={shard_size} must be at least 1")
    if len(dataset) == 0:
        raise ValueError("the data set is empty; check its folder, split and limit")
    note, shards = table.with_suffix(".json"), table.with_suffix(".shards")
    starts = range(0, len(dataset), shard_size)
    paths = {first: shards / f"{shard_size}-{first:08d}.json" for first in starts}
    asked = json.dumps(record)

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
            if not (_is_whole(path, asked) or is_finished()):
                part = _measure(measurement, Window(dataset, first, first + shard_size))
                write_text(path, seal(part, asked + path.name))
    wait_for_all()
    if rank() == 0:
        with shards_needed():
            if not is_finished():
                text, left_out = _merge(
                    [read_sealed(path, asked + path.name) for path in paths.values()]
                )
                found = {"left_out": left_out, "table": digest([text.encode()])}
                write_text(note, seal({**record, **found}, indent=2) + "\n")
                write_text(table, text)
        shutil.rmtree(shards, ignore_errors=True)
        report_left_out(check_table(table, record)["left_out"], len(dataset))
    wait_for_all()


def check_table(table: Path, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What stands beside a finished table, if the table is still as `measure_in_shards` wrote it.

    Raises DamagedFileError if it is not, or if it is not of `record`, where one is given, and
    FileNotFoundError where the file beside it is missing.
    """
    remedy = f"delete it and {table.with_suffix('.json').name} and run again"
    path = files.file(table.with_suffix(".json"), f"it must lie beside {table.name}")
    try:
        note = read_sealed(path)
    except DamagedFileError:
        raise DamagedFileError(path, remedy=f"delete it and {table.name} and run again") from None
    expected = json.loads(json.dumps(record or {}))
    if note.get("table") != digest([table.read_bytes()]) or not all(
        note.get(key) == value for key, value in expected.items()
    ):
        raise DamagedFileError(table, remedy=remedy)
    return note


def _is_whole(path: Path, asked: str) -> bool:
    """Whether a shard is there; one that is not as it was written is as good as none."""
    if not path.exists():
        return False
    try:
        read_sealed(path, asked + path.name)
    except DamagedFileError as error:
        warnings.warn(f"measured again: {error}", stacklevel=3)
        return False
    return True


def _measure(measurement: Measurement, part: Window) -> dict[str, Any]:
    """A shard, JSON-ready: CSV text, what was asked for and is not here, images left out."""
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
    """The table's text, and the images left out."""
    left_out = [reason for part in parts for reason in part["left_out"]]
    read = [part for part in parts if part["header"]]
    if not read:
        raise NoneReadableError(left_out)
    for name, message in read[0]["absent"].items():
        if all(name in part["absent"] for part in read):
            raise ValueError(message)
    return read[0]["header"] + "\n" + "".join(part["rows"] for part in read), left_out
