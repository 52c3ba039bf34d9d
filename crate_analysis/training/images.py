"""Labelled images for training, rendered or decoded once and then read from a file."""

from __future__ import annotations

import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from crate_analysis.bars import bar
from crate_analysis.datasets import SampleDataset, batches, creatures, load_dataset, stack_images
from crate_analysis.datasets.batches import attempts, left_out_gathered, report_left_out
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.distributed import first_process_first
from crate_analysis.fingerprints import of_code, of_data, of_files
from crate_analysis.names import digest
from crate_analysis.training.recipe import Recipe
from crate_analysis.writing import DamagedFileError, read_sealed, seal, write_text, written_whole

BATCH = 64
"""Images that are written at a time."""
WORTH_A_WORKER = 1000
"""Images that take about as long to read as a process takes to start."""


class CachedImages:
    """The images of a split as one memory-mapped array; workers are not needed to read it.

    Images whose files are damaged or missing are left out, and listed by a warning each time.

    The file's name holds a digest of what the data set shows and of the state of its files, so that
    a changed data set is not answered from an old file. Beside it lie the labels and a checksum of
    each image. Where these, or the file's length, are not as they were written, the images are
    rendered again.
    """

    def __init__(
        self, spec: str, split: str, image_size: int, limit: int, seed: int, folder: Path
    ) -> None:
        source = load_dataset(spec, split, image_size, limit, seed)
        _check_labels(source)
        self.classes: tuple[str, ...] = tuple(source.classes)
        self.path = folder / f"{split}-{image_size}-{len(source)}-{_digest(source)}.npy"
        found = _open(self.path)
        if found is None:
            _render(source, self.path)
            found = _open(self.path)
        if found is None:
            raise DamagedFileError(self.path)
        self.images, note = found
        self.labels = np.array(note["labels"], np.int64)
        self.checks = np.array(note["checks"], np.int64)
        report_left_out(note["left_out"], len(source))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: list[int]) -> tuple[UInt8[Tensor, "b 3 H W"], Int64[Tensor, " b"]]:
        """Images and labels by index. Raises DamagedFileError for an image that was changed."""
        images = self.images[indices]
        for index, image in zip(indices, images, strict=True):
            if zlib.crc32(image) != self.checks[index]:
                raise DamagedFileError(self.path, f"image {index}")
        return torch.from_numpy(images), torch.from_numpy(self.labels[indices])


def classes_of(recipe: Recipe, image_size: int) -> tuple[str, ...]:
    """The classes of the images that a recipe trains on.

    Looks at both splits that it needs, so that a missing one is found out before anything is
    written.
    """
    for split in ("train", recipe.monitor):
        classes = load_dataset(recipe.dataset, split, image_size, limit=1).classes
    return tuple(classes)


def cached_images(
    recipe: Recipe, image_size: int, folder: Path
) -> tuple[CachedImages, CachedImages]:
    """The images that a recipe trains on, and those that it watches; one process renders them."""
    with first_process_first():
        return (
            CachedImages(
                recipe.dataset, "train", image_size, recipe.n_train, recipe.data_seed, folder
            ),
            CachedImages(
                recipe.dataset, recipe.monitor, image_size, recipe.n_val, recipe.data_seed, folder
            ),
        )


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(source: SampleDataset) -> str:
    """Of the images and their files, and of the code that draws them where they have none."""
    drawn_by = of_code(Path(creatures.__file__).parent) if of_files(source) is None else ""
    return digest([of_data(source).encode(), drawn_by.encode()])


def _check_labels(source: SampleDataset) -> None:
    """Raise ValueError where the first image that can be read has no label."""
    for sample in attempts(source, range(len(source)), workers=0, ahead=0):
        if isinstance(sample, UnreadableSampleError):
            continue
        if sample.label is None:
            raise ValueError(
                f"{sample.path} has no label; training needs a data set with one class an image, "
                "such as creatures or folder:ROOT with a folder for each class"
            )
        return


def _open(path: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The images and what lies beside them; None where they are not there, or not whole."""
    if not (path.exists() and _note_of(path).exists()):
        return None
    try:
        note = read_sealed(_note_of(path), path.name)
        images = np.load(path, mmap_mode="r")
        if list(images.shape) != note["shape"] or images.dtype != np.uint8:
            raise ValueError("it is another array")
    except (ValueError, EOFError, OSError) as error:
        warnings.warn(f"{path} is damaged ({error}): its images are read again", stacklevel=3)
        return None
    return images, note


def _render(source: SampleDataset, path: Path) -> None:
    images: np.memmap | None = None
    labels: list[int | None] = []
    checks: list[int] = []
    workers = min(os.cpu_count() or 1, len(source) // WORTH_A_WORKER)
    with written_whole(path) as part, left_out_gathered() as left_out:
        read = batches(source, BATCH, workers=workers)
        for _, samples in bar(read, "images", -(-len(source) // BATCH), unit="batch"):
            found = stack_images(samples).numpy()
            if images is None:  # as long as it can get: what was left out is missing at its end
                shape = (len(source), *found.shape[1:])
                images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
            images[len(labels) : len(labels) + len(found)] = found
            labels += [sample.label for sample in samples]
            checks += [zlib.crc32(image) for image in found]
        assert images is not None, "batches raises where nothing can be read"
        images.flush()
    # last: with the images of another rendering it does not agree
    note = {"shape": list(images.shape), "labels": labels, "checks": checks, "left_out": left_out}
    write_text(_note_of(path), seal(note, path.name))
