"""PASCAL VOC's segmentation, by class and by object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from . import files
from .sample import Sample, SampleDataset, UnreadableSampleError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
BACKGROUND, VOID = 0, 255
LISTS = "ImageSets/Segmentation"


class Voc(SampleDataset):
    """VOC's pictures with one mask for each class in the picture, and with its void pixels.

    ROOT is the folder that holds `JPEGImages`, or one above it as the archive unpacks. The classes
    are VOC's twenty, unless a `labelmap.txt` at ROOT names others, one `name:r,g,b::` a line from
    index 0, the background, on. Masks belong to the pixels as the picture's file stores them; only
    where masks and picture are of one size when it is turned upright is it turned.
    """

    name = "voc"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        base = files.folder(Path(root), "give the folder that holds JPEGImages")
        inner = (base, base / "VOC2012", base / "VOCdevkit" / "VOC2012")
        self.root = next((path for path in inner if (path / "JPEGImages").is_dir()), base)
        files.folder(self.root / "JPEGImages", "this is no VOC folder")
        lists = files.folder(self.root / LISTS, "only VOC's segmentation part can be read")
        present = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
        listing = files.file(lists / f"{split}.txt", f"the splits there are {present}")
        names = files.read_lines(listing)
        if not names:
            raise ValueError(f"{listing} lists no pictures: restore it from the data set's archive")
        self.names = [names[k] for k in files.subset(len(names), limit, seed)]
        labelmap = self.root / "labelmap.txt"
        self.classes = read_labelmap(labelmap) if labelmap.is_file() else CLASSES

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[self.check(index)]
        indices, names = self._truth(name)
        path = files.named(self.root / "JPEGImages", name, ".jpg", ".jpeg", ".png")
        size = indices.shape[::-1]
        picture = files.read_picture(path, size)
        if picture.size != size:
            raise UnreadableSampleError(
                f"{path} is not of the size of its masks, {size[0]} x {size[1]} pixels: "
                "restore both from the archive"
            )
        planes = np.array(list(names), np.uint8).reshape(-1, 1, 1)
        return files.to_sample(
            path,
            picture,
            self.image_size,
            masks=torch.from_numpy(indices == planes),
            names=list(names.values()),
            void=torch.from_numpy(indices == VOID),
            crowds=torch.zeros((0, *indices.shape), dtype=torch.bool),
        )

    def _truth(self, name: str) -> tuple[UInt8[np.ndarray, "H W"], dict[int, str]]:
        """The index that each pixel has, and which indices are masks, with their classes."""
        path = files.named(self.root / "SegmentationClass", name, ".png")
        indices = files.read_indices(path)
        present = _present(indices)
        if present and present[-1] > len(self.classes):
            raise UnreadableSampleError(
                f"{path} has class {present[-1]} of {len(self.classes)}: "
                "name the classes in labelmap.txt"
            )
        return indices, {k: self.classes[k - 1] for k in present}


class VocObjects(Voc):
    """VOC's pictures with one mask for each object, named by the class of most of its pixels."""

    name = "voc-objects"

    def _truth(self, name: str) -> tuple[UInt8[np.ndarray, "H W"], dict[int, str]]:
        classes, class_names = super()._truth(name)
        path = files.named(self.root / "SegmentationObject", name, ".png")
        indices = files.read_indices(path)
        if indices.shape != classes.shape:
            raise UnreadableSampleError(
                f"{path} is not of the size of its namesake in SegmentationClass: "
                "restore both from the archive"
            )
        names = {}
        for k in _present(indices):
            votes = np.bincount(classes[indices == k], minlength=VOID + 1)
            votes[[BACKGROUND, VOID]] = 0
            if not votes.any():
                raise UnreadableSampleError(
                    f"{path} has object {k} where its namesake in SegmentationClass has no class: "
                    "restore both from the archive"
                )
            names[k] = class_names[int(votes.argmax())]
        return indices, names


def read_labelmap(path: Path) -> tuple[str, ...]:
    """The names of the classes 1, 2, ... in a label map."""
    lines = [line for line in files.read_lines(path) if line[0] != "#"]
    if len(lines) < 2:
        raise ValueError(
            f"{path} names no class: write one 'name:r,g,b::' a line, background first"
        )
    return tuple(line.split(":")[0] for line in lines[1:])


def _present(indices: UInt8[np.ndarray, "H W"]) -> list[int]:
    return [k for k in np.unique(indices).tolist() if k not in (BACKGROUND, VOID)]
