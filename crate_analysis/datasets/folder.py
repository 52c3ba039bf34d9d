"""Folders of pictures, sorted into one folder per class or not at all."""

from __future__ import annotations

from pathlib import Path

import torch

from . import files
from .sample import Sample, SampleDataset

SPLITS = ("train", "val", "valid", "validation", "test")


class Folder(SampleDataset):
    """`ROOT/[SPLIT/]CLASS/x.jpg` with the class as label, or `ROOT/[SPLIT/]x.jpg` without labels.

    Where ROOT has no folder named like a split, all of it serves as any split. Pictures are
    resized by their shorter side and cropped to the middle; there are no masks. Hidden files and
    folders are passed over.
    """

    name = "folder"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        base = files.folder(Path(root), "give the folder that holds the pictures")
        present = [name for name in SPLITS if (base / name).is_dir()]
        if present:
            hint = f"no split {split!r} there, only {', '.join(present)}"
            base = files.folder(base / split, hint)
        paths = sorted(
            path
            for path in base.rglob("*")
            if path.suffix.lower() in files.SUFFIXES
            and not path.is_dir()
            and not any(part.startswith(".") for part in path.relative_to(base).parts)
        )
        if not paths:
            kinds = ", ".join(sorted(files.SUFFIXES))
            raise ValueError(f"{base} holds no pictures: put some there ({kinds})")
        loose = [path for path in paths if path.parent == base]
        if loose and len(loose) < len(paths):
            raise ValueError(
                f"{base} holds pictures beside folders of pictures ({loose[0].name}): "
                "move them into a class folder or the folders away"
            )
        names = [] if loose else [path.relative_to(base).parts[0] for path in paths]
        self.classes = tuple(sorted(set(names)))
        kept = files.subset(len(paths), limit, seed)
        self.paths = [paths[k] for k in kept]
        self.labels = [self.classes.index(names[k]) if names else None for k in kept]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        picture = files.crop(files.read_picture(self.paths[index]), self.image_size)
        image = files.to_tensor(picture)
        return Sample(
            image=image,
            label=self.labels[index],
            masks=torch.zeros((0, *image.shape[1:]), dtype=torch.bool),
            mask_names=(),
            path=str(self.paths[index]),
        )
