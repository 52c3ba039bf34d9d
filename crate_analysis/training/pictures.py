"""Labelled pictures for training, rendered or decoded once and then read from a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from crate_analysis.datasets import SampleDataset, batches, load_dataset, stack_images
from crate_analysis.datasets.batches import attempts
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.distributed import first_process_first
from crate_analysis.training.recipe import Recipe

BATCH = 64
"""Pictures that are written at a time."""
WORTH_A_WORKER = 1000
"""Pictures that take about as long to read as a process takes to start."""


class CachedPictures:
    """The pictures of a split as one memory-mapped array; workers are not needed to read it.

    Pictures whose files are damaged or missing are left out, and listed by a warning.

    The file's name holds a digest of what the data set gives now, so that a changed data set is
    not answered from an old file.
    """

    def __init__(
        self, spec: str, split: str, image_size: int, limit: int, seed: int, folder: Path
    ) -> None:
        source = load_dataset(spec, split, image_size, limit, seed)
        self.classes: tuple[str, ...] = tuple(source.classes)
        path = folder / f"{split}-{image_size}-{len(source)}-{_digest(source)}.npy"
        if not path.exists():
            _render(source, path)
        self.images = np.load(path, mmap_mode="r")
        self.labels = np.load(_labels_of(path))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: list[int]) -> tuple[UInt8[Tensor, "b 3 H W"], Int64[Tensor, " b"]]:
        """Pictures and labels by index."""
        return torch.from_numpy(self.images[indices]), torch.from_numpy(self.labels[indices])


def classes_of(recipe: Recipe, image_size: int) -> tuple[str, ...]:
    """The classes of the pictures that a recipe trains on.

    Looks at both splits that it needs, so that a missing one is found out before anything is
    written.
    """
    for split in ("train", recipe.monitor):
        classes = load_dataset(recipe.dataset, split, image_size, limit=1).classes
    return tuple(classes)


def cached_pictures(
    recipe: Recipe, image_size: int, folder: Path
) -> tuple[CachedPictures, CachedPictures]:
    """The pictures that a recipe trains on, and those that it watches; one process renders them."""
    with first_process_first():
        return (
            CachedPictures(
                recipe.dataset, "train", image_size, recipe.n_train, recipe.data_seed, folder
            ),
            CachedPictures(
                recipe.dataset, recipe.monitor, image_size, recipe.n_val, recipe.data_seed, folder
            ),
        )


def _labels_of(path: Path) -> Path:
    return path.with_suffix(".labels.npy")


def _digest(source: SampleDataset) -> str:
    """Of the first pictures and labels, and of the names of the classes."""
    digest = hashlib.sha256(repr(tuple(source.classes)).encode())
    for sample in attempts(source, range(min(8, len(source))), workers=0, ahead=0):
        if isinstance(sample, UnreadableSampleError):
            continue
        if sample.label is None:
            raise ValueError(
                f"{sample.path} has no label; training needs a data set with one class a picture, "
                "such as creatures or folder:ROOT with a folder for each class"
            )
        digest.update(sample.image.numpy().tobytes() + bytes(str(sample.label), "ascii"))
    return digest.hexdigest()[:16]


def _render(source: SampleDataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part.npy")
    images: np.memmap | None = None
    labels: list[int | None] = []
    workers = min(os.cpu_count() or 1, len(source) // WORTH_A_WORKER)
    read = batches(source, BATCH, workers=workers)
    for _, samples in tqdm(read, "pictures", -(-len(source) // BATCH), unit="batch"):
        found = stack_images(samples).numpy()
        if images is None:  # as long as it can get: what was left out is missing at its end
            shape = (len(source), *found.shape[1:])
            images = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        images[len(labels) : len(labels) + len(found)] = found
        labels += [sample.label for sample in samples]
    assert images is not None, "batches raises where nothing can be read"
    images.flush()
    labels_part = part.with_suffix(".labels")
    with open(labels_part, "wb") as file:
        np.save(file, np.array(labels, np.int64))
    os.replace(labels_part, _labels_of(path))
    os.replace(part, path)  # last: its presence says that both are whole
