"""COCO's instance segmentation."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from crate_analysis.names import nearest

from . import files
from .folder import SPLIT_OF, WHOLE
from .sample import PassedOverWarning, Sample, SampleDataset, UnreadableSampleError

YEAR = 2017
DEFAULT = "default"
"""What CVAT calls the split of a data set without splits."""


class Coco(SampleDataset):
    """COCO's images with one mask for each instance, and with its crowds.

    ROOT holds `annotations/instances_SPLIT.json`, with a year behind SPLIT or without, or
    `SPLIT/_annotations.coco.json`. Of several years the last one is read. The images are in a
    folder that is called by the split, with the year or without, in ROOT or ROOT/images, or in
    `images`, or beside the annotations. Where there is one file, whose name says no split
    (`instances_default.json`), `has_splits` is False, and it is read as `val` (or `all`).

    Annotations belong to the pixels as the image's file stores them, whatever its EXIF says;
    only where it has the annotated size when it is turned upright is it turned. Annotations of
    images that the file does not list are passed over, as COCO's own tools do. Those without a
    polygon of three corners, such as boxes, are left out, and a `PassedOverWarning` counts them.
    """

    name = "coco"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        base = files.root(root, "give the folder that holds COCO's annotations")
        found = _listings(base)
        self.has_splits = [one.split for one in found] != [DEFAULT]
        chosen = _choose(base, found, split)
        self.listing = chosen.path
        content = _read(self.listing)
        images = _by_id(content["images"], "image", self.listing)
        categories = _by_id(content["categories"], "category", self.listing)
        if not images:
            raise ValueError(f"{self.listing} lists no images: fetch it again")
        self.category_names = {key: str(one["name"]) for key, one in categories.items()}
        self.classes = tuple(self.category_names.values())
        annotations = _by_image(content["annotations"], images, self.listing)
        keys = list(images)
        self.keys = [keys[k] for k in files.subset(len(keys), limit, seed)]
        self.images = [images[key] for key in self.keys]
        self.annotations = {key: annotations[key] for key in self.keys}
        self.folder = _image_folder(base, chosen, self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        image, key = self.images[index], self.keys[index]
        height, width = self._size(index)
        path = self._path(index)
        picture = files.read_image(path, (width, height))
        if picture.size != (width, height):
            raise UnreadableSampleError(
                f"{path} is not {width} x {height} as annotated: fetch it again"
            )
        notes = self.annotations[key]
        planes = torch.zeros((len(notes), height, width), dtype=torch.bool)
        crowd = torch.zeros(len(notes), dtype=torch.bool)
        names = []
        for k, note in enumerate(notes):
            try:
                planes[k] = decode(note["segmentation"], height, width)
                crowd[k] = _flag(note.get("iscrowd"))
                category = _key(note["category_id"])
                if category not in self.category_names:
                    raise ValueError(f"there is no category {note['category_id']}")
                names.append(self.category_names[category])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                where = f"annotation {note.get('id', k)} of image {image['id']}"
                raise self._damaged(where, error) from None
        return files.to_sample(
            path,
            picture,
            self.image_size,
            masks=planes[~crowd],
            names=list(compress(names, (~crowd).tolist())),
            void=torch.zeros((height, width), dtype=torch.bool),
            crowds=planes[crowd],
        )

    def files(self) -> Iterator[Path]:
        """The annotations and the images."""
        yield self.listing
        for index in range(len(self)):
            try:
                yield self._path(index)
            except UnreadableSampleError:
                continue

    def coco_image(self, index: int) -> tuple[int | str, int, int]:
        """COCO's own id of item `index`, and the size of its file."""
        return self.images[self.check(index)]["id"], *self._size(index)

    def _size(self, index: int) -> tuple[int, int]:
        """The annotated height and width of an image."""
        image = self.images[index]
        try:
            height, width = _whole(image["height"]), _whole(image["width"])
            if min(height, width) < 1:
                raise ValueError(f"{height} x {width} pixels")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"image {image['id']}", error) from None
        return height, width

    def _path(self, index: int) -> Path:
        image = self.images[index]
        name = image.get("file_name")
        if not isinstance(name, str):
            raise self._damaged(f"image {image['id']}", KeyError("file_name"))
        return files.inside(self.folder, name, self.listing)

    def _damaged(self, what: str, error: Exception) -> UnreadableSampleError:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        return UnreadableSampleError(
            f"{self.listing} is damaged at {what} ({reason}): fetch it again"
        )


class _Listing(NamedTuple):
    """A file of annotations, by its name."""

    path: Path
    split: str
    year: str


def _listings(base: Path) -> list[_Listing]:
    """The files of instances in a folder, by split and year."""
    found = []
    for place in (base / "annotations", base):
        for path in sorted(place.glob("instances_*.json")):
            stem = path.stem.removeprefix("instances_")
            split, year = re.fullmatch(r"(.*?)[_-]?(20\d\d)?", stem).groups("")  # type: ignore[union-attr]
            found.append(_Listing(path, split or DEFAULT, year))
    for inner in files.folders_in(base):
        if (path := inner / "_annotations.coco.json").exists():
            found.append(_Listing(path, inner.name, ""))
    if not found and (path := base / "_annotations.coco.json").exists():
        found.append(_Listing(path, DEFAULT, ""))
    return found


def _choose(base: Path, found: list[_Listing], split: str) -> _Listing:
    """The annotations of a split; FileNotFoundError where there are none."""
    if not found:
        other = sorted(path.name for path in base.rglob("*.json"))
        if any(name.startswith("lvis") for name in other):
            raise FileNotFoundError(
                f"{base} holds LVIS's annotations, which name only some of the objects in an image "
                "and cannot be scored as COCO's: add COCO's annotations/instances_val2017.json"
            )
        hint = f" (there is {', '.join(other[:3])})" if other else ""
        raise FileNotFoundError(
            f"{base}: this is no COCO folder{hint}; name the annotations "
            f"annotations/instances_{split}.json"
        )
    if [one.split for one in found] == [DEFAULT]:
        if split in (*WHOLE, DEFAULT):
            return found[0]
        raise FileNotFoundError(
            f"{found[0].path} has no splits, so no split {split!r}: all of it is split 'val'"
        )
    wanted = [one for one in found if split in (one.split, one.split + one.year)]
    wanted = wanted or [
        one
        for one in found
        if SPLIT_OF.get(one.split.lower(), one.split) == SPLIT_OF.get(split.lower(), split)
    ]
    if wanted:
        return max(wanted, key=lambda one: one.year)
    present = sorted({one.split for one in found})
    near = nearest(split, present)
    hint = f", did you mean {near!r}?" if near and split not in SPLIT_OF else ""
    raise FileNotFoundError(
        f"{base / 'annotations'} has no instances_{split}.json: "
        f"the splits there are {', '.join(present)}{hint}"
    )


def _image_folder(base: Path, listing: _Listing, images: list[dict]) -> Path:
    """The folder that holds the images: that which has the first of them."""
    split, year = listing.split, listing.year
    names = dict.fromkeys((split + year, split, "images", "data", "."))
    folders = [
        listing.path.parent if listing.path.name.startswith("_") else base / f"{split}{year}",
        *(base / name for name in names),
        *(base / "images" / name for name in names),
    ]
    present = [folder for folder in folders if folder.is_dir()]
    for image in images[:20]:  # one or the other may be missing
        for folder in present:
            name = image.get("file_name")
            if isinstance(name, str) and name and (folder / name.replace("\\", "/")).is_file():
                return folder
    if folders[0].is_dir() or (base / "images").is_dir():
        return folders[0] if folders[0].is_dir() else base / "images"
    return files.folder(folders[0], "unpack the split's images there")


def _read(listing: Path) -> dict:
    """The lists of a file of annotations. Raises ValueError for what is no such file."""
    files.file(listing, "fetch it again")
    try:
        content = json.loads(listing.read_bytes())
        if "images" in content and any(
            "not_exhaustive_category_ids" in one for one in content["images"][:1]
        ):
            raise ValueError("it is LVIS's, which names only some of the objects in an image")
        for name in ("images", "categories", "annotations"):
            if not isinstance(content[name], list):
                raise TypeError(f"{name!r} is no list")
            if odd := [one for one in content[name] if not isinstance(one, dict)]:
                raise TypeError(f"{name!r} holds {str(odd[0])[:40]!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(
            f"{listing} is damaged ({type(error).__name__}: {reason}): fetch it again"
        ) from None
    return content


def _by_id(found: list[dict], what: str, listing: Path) -> dict[int | str, dict]:
    """Images or categories in the order of their ids."""
    result: dict[int | str, dict] = {}
    for one in found:
        try:
            key = _key(one["id"])
            if what == "category":
                one["name"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{listing} is damaged at {what} {str(one)[:60]} ({reason}): fetch it again"
            ) from None
        if key in result:
            raise ValueError(
                f"{listing} has two of the {what} id {key}: give each {what} its own id"
            )
        result[key] = one
    return {key: result[key] for key in sorted(result, key=lambda key: (isinstance(key, str), key))}


def _by_image(
    notes: list[dict], images: dict[int | str, dict], listing: Path
) -> dict[int | str, list[dict]]:
    """Annotations that can be drawn, by their image's id."""
    result: dict[int | str, list[dict]] = {key: [] for key in images}
    seen: set[int | str] = set()
    empty = []
    for note in notes:
        try:
            key = _key(note["image_id"])
            identity = _key(note["id"]) if "id" in note else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{listing} is damaged at annotation {str(note)[:60]} ({reason}): fetch it again"
            ) from None
        if identity is not None and identity in seen:
            raise ValueError(
                f"{listing} has two of the annotation id {identity}: "
                "give each annotation its own id, or remove what stands there twice"
            )
        if identity is not None:
            seen.add(identity)
        if not _drawable(note.get("segmentation")):
            empty.append(identity)
        elif key in result:
            result[key].append(note)
    if empty and len(empty) == len(notes):
        raise ValueError(
            f"{listing} has boxes but no segmentation: it must hold polygons or run lengths"
        )
    if empty:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        warnings.warn(
            PassedOverWarning(
                f"{listing}: {len(empty)} of {len(notes)} annotations have no polygon of three "
                f"corners and are left out (ids {shown})"
            ),
            stacklevel=4,
        )
    return result


def _drawable(segmentation: Any) -> bool:
    """Whether there is anything to draw: run lengths, or a polygon with more than two corners."""
    if isinstance(segmentation, list):
        return not all(map(_is_empty, segmentation))
    return segmentation is not None


def _is_empty(polygon: Any) -> bool:
    """Whether a polygon has one or two corners, or none."""
    if not isinstance(polygon, list) or len(polygon) > 4 or len(polygon) % 2:
        return False
    return not any(isinstance(value, list) for value in polygon)


def _key(value: Any) -> int | str:
    """An id, whether it was written as a number or as a text."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?\d{1,18}", value) else value
    return _whole(value)


def _whole(value: Any) -> int:
    """A whole number, however it was written; ValueError for others."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    if isinstance(value, str):
        return int(value)
    if value != int(value):
        raise ValueError(f"{value} is no whole number")
    return int(value)


def _flag(value: Any) -> bool:
    """`iscrowd`, however it was written; ValueError for what is neither 0 nor 1."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if (number := _whole(value)) not in (0, 1):
        raise ValueError(f"iscrowd is {value!r}")
    return bool(number)


def run_lengths() -> ModuleType:
    """The module that packs and unpacks masks, of an optional dependency."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "COCO's masks need pycocotools: pip install 'crate-analysis[coco]'"
        ) from None
    return mask


def decode(
    segmentation: list | dict, height: int | float | str, width: int | float | str
) -> Bool[Tensor, "H W"]:
    """The mask of polygons, or of run lengths in a list or packed into a string.

    Polygons of fewer than three corners are left out. Raises ValueError for what is no mask of
    height x width pixels.
    """
    rle = run_lengths()
    rows, columns = _whole(height), _whole(width)
    if isinstance(segmentation, list):
        polygons = _check_polygons(segmentation, rows, columns)
        packed = rle.merge(rle.frPyObjects(polygons, rows, columns))
    else:
        size, counts = list(segmentation["size"]), segmentation["counts"]
        if not isinstance(counts, (str, bytes, list)):
            raise ValueError(f"counts are {counts!r}")
        runs = _unpack(counts) if isinstance(counts, (str, bytes)) else [_whole(n) for n in counts]
        is_size = [_whole(side) for side in size] == [rows, columns]
        if not is_size or min(runs, default=-1) < 0 or sum(runs) != rows * columns:
            raise ValueError(f"run lengths of {size} do not fill {height} x {width} pixels")
        packed = rle.frPyObjects({"size": [rows, columns], "counts": runs}, rows, columns)
    with warnings.catch_warnings():  # of numpy, at how pycocotools hands its result over
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(rle.decode(packed).astype(bool))


def _check_polygons(polygons: list, height: int, width: int) -> list:
    """The polygons to draw; ValueError for what pycocotools fails at or cannot draw in time."""
    drawn = [one for one in polygons if not _is_empty(one)]
    if not drawn:
        raise ValueError("there is no polygon")
    for polygon in drawn:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError("a polygon must be x, y of at least three corners")
        points = corners.reshape(-1, 2)
        reach = np.abs(points) <= (2 * width, 2 * height)  # not so for NaN, either
        if not reach.all():
            raise ValueError(f"a polygon reaches far out of the {height} x {width} pixels")
        if np.abs(np.diff(points, axis=0)).sum() > 10 * (height * width + height + width):
            raise ValueError(f"a polygon's outline is too long for {height} x {width} pixels")
    return drawn


LONGEST = 8
"""Characters of a run at most: five bits each make more than 10**12 pixels."""


def _unpack(counts: str | bytes) -> list[int]:
    """Run lengths from a string, as pycocotools packs them: five bits a character, and one more."""
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift >= 5 * LONGEST:
            raise ValueError("the string is none of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the string of run lengths is cut off")
    return runs


def encode(mask: Bool[Tensor, "H W"]) -> dict:
    """A mask as run lengths packed into a string, as COCO's own files hold crowds."""
    packed = run_lengths().encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}
