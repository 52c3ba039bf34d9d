"""COCO's instance segmentation."""

from __future__ import annotations

import json
import warnings
from itertools import compress
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from . import files
from .sample import Sample, SampleDataset, UnreadableSampleError

YEAR = 2017


class Coco(SampleDataset):
    """COCO's pictures with one mask for each instance, and with its crowds.

    ROOT holds `annotations/instances_{split}2017.json` and the pictures in `{split}2017`.
    Annotations belong to the pixels as the picture's file stores them, whatever its EXIF says;
    only where it has the annotated size when it is turned upright is it turned. Annotations of
    pictures that the file does not list are passed over, as COCO's own tools do.
    """

    name = "coco"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        base = files.folder(Path(root), "give the folder that holds COCO's annotations")
        notes = files.folder(base / "annotations", "this is no COCO folder")
        found = sorted(path.stem[10:-4] for path in notes.glob(f"instances_*{YEAR}.json"))
        listing = files.file(
            notes / f"instances_{split}{YEAR}.json",
            f"the splits there are {', '.join(found) or 'none'}",
        )
        self.pictures = files.folder(base / f"{split}{YEAR}", "unpack the split's pictures there")
        try:
            content = json.loads(listing.read_bytes())
            images = sorted(content["images"], key=lambda image: image["id"])
            categories = sorted(content["categories"], key=lambda category: category["id"])
            self.category_names = {category["id"]: category["name"] for category in categories}
            annotations: dict[int, list[dict]] = {image["id"]: [] for image in images}
            for annotation in content["annotations"]:
                annotations.get(annotation["image_id"], []).append(annotation)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{listing} is damaged ({type(error).__name__}: {error}): fetch it again"
            ) from None
        if not images:
            raise ValueError(f"{listing} lists no pictures: fetch it again")
        self.images = [images[k] for k in files.subset(len(images), limit, seed)]
        self.annotations = {image["id"]: annotations[image["id"]] for image in self.images}
        self.classes = tuple(self.category_names.values())
        self.listing = listing

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[self.check(index)]
        try:
            path = self.pictures / image["file_name"]
            height, width = int(image["height"]), int(image["width"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"picture {image['id']}", error) from None
        picture = files.read_image(path, (width, height))
        if picture.size != (width, height):
            raise UnreadableSampleError(
                f"{path} is not {width} x {height} as annotated: fetch it again"
            )
        notes = self.annotations[image["id"]]
        planes = torch.zeros((len(notes), height, width), dtype=torch.bool)
        crowd = torch.zeros(len(notes), dtype=torch.bool)
        names = []
        for k, note in enumerate(notes):
            try:
                planes[k] = decode(note["segmentation"], height, width)
                crowd[k] = bool(note.get("iscrowd"))
                if note["category_id"] not in self.category_names:
                    raise ValueError(f"there is no category {note['category_id']}")
                names.append(self.category_names[note["category_id"]])
            except (KeyError, TypeError, ValueError) as error:
                where = f"annotation {note.get('id', k)} of picture {image['id']}"
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

    def coco_image(self, index: int) -> tuple[int, int, int]:
        """COCO's own id of item `index`, and the size of its file."""
        image = self.images[self.check(index)]
        return image["id"], image["height"], image["width"]

    def _damaged(self, what: str, error: Exception) -> UnreadableSampleError:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        return UnreadableSampleError(
            f"{self.listing} is damaged at {what} ({reason}): fetch it again"
        )


def run_lengths() -> ModuleType:
    """The module that packs and unpacks masks, of an optional dependency."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "COCO's masks need pycocotools: pip install 'crate-analysis[coco]'"
        ) from None
    return mask


def decode(segmentation: list | dict, height: int, width: int) -> Bool[Tensor, "H W"]:
    """The mask of polygons, or of run lengths in a list or packed into a string.

    Raises ValueError for what is no mask of height x width pixels.
    """
    rle = run_lengths()
    if isinstance(segmentation, list):
        _check_polygons(segmentation, height, width)
        packed = rle.merge(rle.frPyObjects(segmentation, height, width))
    else:
        size, counts = list(segmentation["size"]), segmentation["counts"]
        runs = counts if isinstance(counts, list) else _unpack(counts)
        if size != [height, width] or min(runs, default=-1) < 0 or sum(runs) != height * width:
            raise ValueError(f"run lengths of {size} do not fill {height} x {width} pixels")
        packed = rle.frPyObjects({"size": size, "counts": runs}, height, width)
    with warnings.catch_warnings():  # of numpy, at how pycocotools hands its result over
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(rle.decode(packed).astype(bool))


def _check_polygons(polygons: list, height: int, width: int) -> None:
    """Raise ValueError for what would make pycocotools fail or read what is not there."""
    if not polygons:
        raise ValueError("there is no polygon")
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError("a polygon must be x, y of at least three corners")
        reach = np.abs(corners.reshape(-1, 2)) <= (2 * width, 2 * height)  # not so for NaN, either
        if not reach.all():
            raise ValueError(f"a polygon reaches far out of the {height} x {width} pixels")


def _unpack(counts: str | bytes) -> list[int]:
    """Run lengths from a string, as pycocotools packs them: six bits a character."""
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def encode(mask: Bool[Tensor, "H W"]) -> dict:
    """A mask as run lengths packed into a string, as COCO's own files hold crowds."""
    packed = run_lengths().encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}
