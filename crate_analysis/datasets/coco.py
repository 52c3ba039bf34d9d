"""COCO's instance segmentation."""

from __future__ import annotations

import json
import warnings
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
    """COCO's pictures with one mask for each instance; crowds are left out.

    ROOT holds `annotations/instances_{split}2017.json` and the pictures in `{split}2017`.
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
            annotations = content["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{listing} is damaged ({type(error).__name__}: {error}): fetch it again"
            ) from None
        if not images:
            raise ValueError(f"{listing} lists no pictures: fetch it again")
        self.images = [images[k] for k in files.subset(len(images), limit, seed)]
        self.classes = tuple(category["name"] for category in categories)
        self.category_names = {category["id"]: category["name"] for category in categories}
        self.instances: dict[int, list[dict]] = {image["id"]: [] for image in self.images}
        for annotation in annotations:
            if not annotation.get("iscrowd") and annotation["image_id"] in self.instances:
                self.instances[annotation["image_id"]].append(annotation)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[self.check(index)]
        path = self.pictures / image["file_name"]
        picture = files.read_picture(path)
        height, width = image["height"], image["width"]
        if picture.size != (width, height):
            raise UnreadableSampleError(
                f"{path} is not {width} x {height} as annotated: fetch it again"
            )
        instances = self.instances[image["id"]]
        masks = torch.zeros((len(instances), height, width), dtype=torch.bool)
        for k, instance in enumerate(instances):
            masks[k] = decode(instance["segmentation"], height, width)
        masks = files.stretch_masks(masks, self.image_size)
        kept = masks.flatten(1).any(1)
        names = [self.category_names[instance["category_id"]] for instance in instances]
        return Sample(
            image=files.to_tensor(files.stretch(picture, self.image_size)),
            label=None,
            masks=masks[kept],
            mask_names=tuple(name for name, keep in zip(names, kept.tolist(), strict=True) if keep),
            path=str(path),
        )

    def coco_image(self, index: int) -> tuple[int, int, int]:
        """COCO's own id of item `index`, and the size of its file."""
        image = self.images[self.check(index)]
        return image["id"], image["height"], image["width"]


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
    """The mask of polygons, or of run lengths in a list or packed into a string."""
    rle = run_lengths()
    if isinstance(segmentation, list):
        packed = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        packed = rle.frPyObjects(segmentation, height, width)
    else:
        packed = segmentation
    with warnings.catch_warnings():  # of numpy, at how pycocotools hands its result over
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(rle.decode(packed).astype(bool))


def encode(mask: Bool[Tensor, "H W"]) -> dict:
    """A mask as run lengths packed into a string, as COCO's own files hold crowds."""
    packed = run_lengths().encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": list(packed["size"]), "counts": packed["counts"].decode("ascii")}
