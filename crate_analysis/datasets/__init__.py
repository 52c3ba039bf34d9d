"""Data sets by name: generated creatures, and pictures on disk in the usual layouts."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from .batches import batches, read_samples, stack_images
from .coco import Coco
from .creatures import (
    SPLITS,
    CoatCreatures,
    Creatures,
    CreatureScenes,
    ExoticCreatures,
    PartCreatures,
)
from .export import export_coco, export_voc
from .folder import Folder
from .noise import Noise, NoisyPictures, add_noise
from .sample import Sample, SampleDataset, Samples
from .voc import Voc, VocObjects

GENERATED: dict[str, Callable[..., SampleDataset]] = {
    "creatures": Creatures,
    "creatures-exotic": ExoticCreatures,
    "creatures-scenes": CreatureScenes,
    "creatures-parts": PartCreatures,
    "creatures-coats": CoatCreatures,
}
READ: dict[str, Callable[..., SampleDataset]] = {
    "voc": Voc,
    "voc-objects": VocObjects,
    "coco": Coco,
    "folder": Folder,
}


def load_dataset(
    spec: str,
    split: str = "val",
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> SampleDataset:
    """A data set of `Sample`s, which are made or decoded only when asked for.

    | `spec` | pictures | label | masks |
    | --- | --- | --- | --- |
    | `creatures` | generated, one animal each | species | the animal and its parts |
    | `creatures-exotic` | the same with other species | species | the animal and its parts |
    | `creatures-scenes` | generated, one to three animals | None | visible animals |
    | `creatures-parts` | generated, one large animal each | its parts | the animal and its parts |
    | `creatures-coats` | the same images | its coat | the animal and its parts |
    | `voc:ROOT` | PASCAL VOC segmentation | None | one per class; void |
    | `voc-objects:ROOT` | the same | None | one per object; void |
    | `coco:ROOT` | COCO instances | None | one per instance; crowds |
    | `folder:ROOT` | `ROOT/[SPLIT/][CLASS/]x.jpg` | folder, if any | none |

    Splits are `train`, `val` and `test` (and `dev`, to watch a training on) of the generated ones,
    and what is on disk of the others. `image_size` is the side in pixels; by default 96 for single
    animals, 84 for the large ones and 224 for scenes, and the pictures' own size for the others. `limit` keeps the first
    items of the generated ones, whose splits have no end, and a random choice that `seed` settles
    of the others. ValueError says what is wrong with an argument or a file, FileNotFoundError
    which file is missing. Where a single picture or its truth is damaged or missing, asking for it
    is an UnreadableSampleError, and `batches` leaves it out.
    """
    for name, value in (("image_size", image_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in 0 to 2**64 - 1, got {seed}")
    kind, colon, root = spec.partition(":")
    if kind in GENERATED and not colon:
        if split not in SPLITS:
            raise _no_such("split", split, tuple(SPLITS))
        return GENERATED[kind](split, image_size, limit, seed)
    if kind in READ and root:
        return READ[kind](root, split, image_size, limit, seed)
    if kind in GENERATED:
        raise ValueError(f"{kind!r} is generated and takes no folder: write {kind!r}, not {spec!r}")
    if kind in READ:
        raise ValueError(f"{spec!r} names no folder: write '{kind}:ROOT'")
    raise _no_such("data set", spec, (*GENERATED, *(f"{name}:ROOT" for name in READ)))


def _no_such(what: str, value: str, valid: tuple[str, ...]) -> ValueError:
    near = get_close_matches(value, valid, 1, 0.3)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    return ValueError(f"no {what} {value!r}{hint} there are {', '.join(valid)}")


__all__ = [
    "Noise",
    "NoisyPictures",
    "Sample",
    "SampleDataset",
    "Samples",
    "add_noise",
    "batches",
    "export_coco",
    "export_voc",
    "load_dataset",
    "read_samples",
    "stack_images",
]
