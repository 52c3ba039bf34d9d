"""Folders of images, sorted into one folder per class or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from crate_analysis.names import nearest

from . import files
from .sample import PassedOverWarning, Sample, SampleDataset

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The splits, and what the folder of each may be called, in upper or lower case."""
SPLIT_OF = {alias: split for split, aliases in SPLITS.items() for alias in aliases}
WHOLE = ("val", "all")
"""By which names all of a folder without splits is read."""
CLASS_LIST = "classes.txt"


class Folder(SampleDataset):
    """`ROOT/[SPLIT/]CLASS/x.jpg` with the class as label, or `ROOT/[SPLIT/]x.jpg` without labels.

    Splits are `train`, `val` and `test`, in folders that are called so, or `training`, `valid`,
    `validation`, `testing`, in upper or lower case. Where ROOT has no such folder, `has_splits` is
    False, and all of it is split `val` (or `all`).

    The classes have the same numbers in all splits: their lines in `ROOT/classes.txt` if there is
    one, else their places among the sorted class folders of `train`, or without it of all splits.

    Images are resized by their shorter side and cropped to the middle; there are no masks. Hidden
    files and folders are passed over, and links to folders followed. A `PassedOverWarning` counts
    the other files that are not read.
    """

    name = "folder"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        top = files.root(root, "give the folder that holds the images")
        listed = _read_classes(top / CLASS_LIST)
        splits = _splits(top, listed)
        self.has_splits = bool(splits)
        base = _choose(top, splits, split)
        found = files.find_images(base)
        if not found.images:
            kinds = ", ".join(sorted(files.suffixes()))
            raise ValueError(f"{base} holds no images: put some there ({kinds})")
        names = [_class_of(path, base) for path in found.images]
        loose = [path for path, name in zip(found.images, names, strict=True) if name is None]
        if loose and len(loose) < len(names):
            raise ValueError(
                f"{base} holds images beside folders of images ({Path(loose[0]).name}): "
                "move them into a class folder or the folders away"
            )
        present = {name for name in names if name is not None}
        self.classes = _number(top, base, splits, listed, present) if present else ()
        if listed and not self.has_splits:
            found.passed_over[".txt"] -= 1
        _say(base, found, present)
        numbers = {name: number for number, name in enumerate(self.classes)}
        kept = files.subset(len(names), limit, seed)
        self.paths = [Path(found.images[k]) for k in kept]
        self.labels = [None if (name := names[k]) is None else numbers[name] for k in kept]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        image = files.to_tensor(files.crop(files.read_image(self.paths[index]), self.image_size))
        return Sample(
            image=image,
            label=self.labels[index],
            masks=torch.zeros((0, *image.shape[1:]), dtype=torch.bool),
            mask_names=(),
            path=str(self.paths[index]),
        )

    def files(self) -> Iterator[Path]:
        """The images."""
        return iter(self.paths)


def _class_of(path: str, base: Path) -> str | None:
    """The folder in `base` that holds an image; None where it lies in `base` itself."""
    first, inner, _ = path[len(os.path.join(base, "")) :].partition(os.sep)
    return first if inner else None


def _splits(top: Path, listed: tuple[str, ...]) -> dict[str, Path]:
    """The folders of the splits. Raises ValueError where it is not clear which they are."""
    inner = files.folders_in(top)
    found: dict[str, Path] = {}
    for folder in inner:
        split = SPLIT_OF.get(folder.name.lower())
        if split is None or folder.name in listed:
            continue
        if split in found:
            raise ValueError(
                f"{top} holds {found[split].name} and {folder.name}, which are both called like "
                f"split {split!r}: rename one of them"
            )
        for other, path in found.items():
            if path.samefile(folder):
                raise ValueError(
                    f"{path} and {folder} are one folder, so that splits {other!r} and {split!r} "
                    "would be the same images: give each its own"
                )
        found[split] = folder
    if not found:
        return {}
    others = [
        folder.name for folder in inner if folder not in found.values() and files.has_image(folder)
    ]
    if others and len(found) == 1:
        [(split, path)] = found.items()
        if not any(files.has_image(folder) for folder in files.folders_in(path)):
            raise ValueError(
                f"{top} holds the folder {path.name} beside others with images "
                f"({', '.join(others[:3])}), so that it may be a split or a class: move them away, "
                f"or name the classes in {top / CLASS_LIST}, one a line"
            )
    if others:
        text = f"{top} has splits ({', '.join(found)}), and {', '.join(others)} is none of them"
        warnings.warn(PassedOverWarning(f"{text}: it is not read"), stacklevel=4)
    return found


def _choose(top: Path, splits: dict[str, Path], split: str) -> Path:
    """The folder of a split; FileNotFoundError where there is none."""
    if not splits:
        if split in WHOLE:
            return top
        raise FileNotFoundError(
            f"{top} has no splits, so no split {split!r}: all of it is split 'val'; for others "
            "sort its images into folders train, val and test"
        )
    wanted = SPLIT_OF.get(split.lower(), split)
    if wanted in splits:
        return splits[wanted]
    near = nearest(split, splits)
    hint = f", did you mean {near!r}?" if near and split not in SPLIT_OF else ""
    raise FileNotFoundError(f"{top}: no split {split!r} there, only {', '.join(splits)}{hint}")


def _read_classes(path: Path) -> tuple[str, ...]:
    """The names in a list of classes, none where there is no such file."""
    if not path.exists():
        return ()
    names = files.read_lines(files.file(path, "make it a text file with a class a line"))
    doubled = (
        [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    )
    if doubled or not names:
        fault = f"names {doubled[0]!r} twice" if doubled else "names no class"
        raise ValueError(f"{path} {fault}: write each class on one line, by its folder's name")
    return tuple(names)


def _number(
    top: Path, base: Path, splits: dict[str, Path], listed: tuple[str, ...], present: set[str]
) -> tuple[str, ...]:
    """The classes in the order of their numbers. ValueError where `base` holds others."""

    def held(folder: Path) -> set[str]:
        if folder == base:
            return present
        return {one.name for one in files.folders_in(folder) if files.has_image(one)}

    source, known = top / CLASS_LIST, list(listed)
    if not known and "train" in splits:
        source, known = splits["train"], sorted(held(splits["train"]))
    if not known:
        source = top
        known = sorted(set().union(*(held(one) for one in splits.values() or [base])))
    if strange := sorted(present - set(known)):
        near = nearest(strange[0], known, 0.8)
        raise ValueError(
            f"{base} has class folders that {source} does not have: {', '.join(strange[:5])}"
            + (", ..." if len(strange) > 5 else "")
            + (f" (did you mean {near!r}?)" if near else "")
            + f"; rename or move them, or list all classes in {top / CLASS_LIST}, one a line"
        )
    return tuple(known)


def _say(base: Path, found: files.Found, present: set[str]) -> None:
    """Warn of what lies in a folder and is not read."""
    kinds = +found.passed_over
    parts = []
    if kinds:
        counts = ", ".join(
            f"{count} {kind or 'without ending'}" for kind, count in sorted(kinds.items())
        )
        parts.append(f"{kinds.total()} files that are no images ({counts})")
    if present:
        empty = [one.name for one in files.folders_in(base) if one.name not in present]
        if empty:
            parts.append(f"folders without images ({', '.join(empty[:5])})")
    if parts:
        warnings.warn(PassedOverWarning(f"{base}: passed over {' and '.join(parts)}"), stacklevel=4)
