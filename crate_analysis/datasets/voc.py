"""PASCAL VOC's semantic segmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from . import files
from .sample import Sample, SampleDataset, UnreadableSampleError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOID = 255
LISTS = "ImageSets/Segmentation"


class Voc(SampleDataset):
    """VOC's pictures with one mask for each class in the picture; void pixels are in none.

    ROOT is the folder that holds `JPEGImages`, or one above it as the archive unpacks. The classes
    are VOC's twenty, unless a `labelmap.txt` at ROOT names others, one `name:r,g,b::` a line from
    index 0, the background, on.
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
        names = listing.read_text().split()
        if not names:
            raise ValueError(f"{listing} lists no pictures: restore it from the data set's archive")
        self.names = [names[k] for k in files.subset(len(names), limit, seed)]
        labelmap = self.root / "labelmap.txt"
        self.classes = read_labelmap(labelmap) if labelmap.is_file() else CLASSES

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[self.check(index)]
        path = self.root / "JPEGImages" / f"{name}.jpg"
        if not path.exists() and path.with_suffix(".png").exists():
            path = path.with_suffix(".png")
        truth = self.root / "SegmentationClass" / f"{name}.png"
        picture, indices = files.read_picture(path), files.read_indices(truth)
        if indices.shape != picture.size[::-1]:
            raise UnreadableSampleError(
                f"{truth} is not of the size of {path}: restore both from the archive"
            )
        present = [k for k in np.unique(indices).tolist() if k not in (0, VOID)]
        if present and present[-1] > len(self.classes):
            raise ValueError(
                f"{truth} has class {present[-1]} of {len(self.classes)}: "
                "name the classes in labelmap.txt"
            )
        masks = torch.from_numpy(indices == np.array(present, np.uint8).reshape(-1, 1, 1))
        masks = files.stretch_masks(masks, self.image_size)
        kept = masks.flatten(1).any(1)
        return Sample(
            image=files.to_tensor(files.stretch(picture, self.image_size)),
            label=None,
            masks=masks[kept],
            mask_names=tuple(
                self.classes[k - 1] for k, keep in zip(present, kept.tolist(), strict=True) if keep
            ),
            path=str(path),
        )


def read_labelmap(path: Path) -> tuple[str, ...]:
    """The names of the classes 1, 2, ... in a label map."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return tuple(line.split(":")[0] for line in lines[1:])
