"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from crate_analysis.names import unknown

from .coco import Coco
from .creatures import (
    SPLITS,
    CoatCreatures,
    Creatures,
    CreatureScenes,
    ExoticCreatures,
    PartCreatures,
    RestagedCreatures,
    WidePartCreatures,
)
from .folder import Folder
from .photographs import Photographs
from .sample import SampleDataset
from .voc import Voc, VocObjects

GENERATED: dict[str, Callable[..., SampleDataset]] = {
    "creatures": Creatures,
    "creatures-exotic": ExoticCreatures,
    "creatures-restaged": RestagedCreatures,
    "creatures-scenes": CreatureScenes,
    "creatures-parts": PartCreatures,
    "creatures-parts-wide": WidePartCreatures,
    "creatures-coats": CoatCreatures,
}
PACKAGED: dict[str, Callable[..., SampleDataset]] = {"photographs": Photographs}
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

    | `spec` | images | label | masks |
    | --- | --- | --- | --- |
    | `creatures` | generated, one animal each | species | the animal and its parts |
    | `creatures-exotic` | the same with other species | species | the animal and its parts |
    | `creatures-restaged` | the animals of `creatures`, on other stages | species | the same |
    | `creatures-scenes` | generated, one to three animals | None | visible animals |
    | `creatures-parts` | generated, one large animal each | its parts | the animal and its parts |
    | `creatures-parts-wide` | the same in wider poses | its parts | the animal and its parts |
    | `creatures-coats` | those of `creatures-parts` | its coat | the animal and its parts |
    | `photographs` | six, of installed packages | None | none |
    | `voc:ROOT` | PASCAL VOC segmentation | None | one per class; void |
    | `voc-objects:ROOT` | the same | None | one per object; void |
    | `coco:ROOT` | COCO instances | None | one per instance; crowds |
    | `folder:ROOT` | `ROOT/[SPLIT/][CLASS/]x.jpg` | folder, if any | none |

    Splits are `train`, `val` and `test` (and `dev`, to watch a training on) of the generated ones,
    `val` of photographs, and what is on disk of the others; where there are no splits on disk, all
    of it is `val`.
    `image_size` is the side in pixels; by default 96 for single animals, 84 for large ones and 224
    for scenes, and the images' own size for the others. `limit` keeps the first items of the
    generated ones, whose splits have no end, and a random choice that `seed` settles of the others.

    Raises ValueError for an argument or a file that is wrong, and FileNotFoundError for a file or
    split that is missing. Where a single image or its truth is damaged or missing, asking for it
    is an UnreadableSampleError, and `batches` leaves it out.

    >>> len(load_dataset("creatures", "val", image_size=72, limit=5))
    5
    """
    for name, value in (("image_size", image_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in 0 to 2**64 - 1, got {seed}")
    kind, colon, root = spec.partition(":")
    if kind in GENERATED and not colon:
        if split not in SPLITS:
            raise ValueError(unknown("split", split, SPLITS))
        return GENERATED[kind](split, image_size, limit, seed)
    if kind in PACKAGED and not colon:
        return PACKAGED[kind](split, image_size, limit, seed)
    if kind in READ and root:
        return READ[kind](root, split, image_size, limit, seed)
    if kind in GENERATED:
        raise ValueError(f"{kind!r} is generated and takes no folder: write {kind!r}, not {spec!r}")
    if kind in PACKAGED:
        raise ValueError(f"{kind!r} takes no folder: write {kind!r} or 'folder:{root}'")
    if kind in READ:
        raise ValueError(f"{spec!r} names no folder: write '{kind}:ROOT'")
    raise ValueError(
        unknown("data set", spec, [*GENERATED, *PACKAGED, *(f"{name}:ROOT" for name in READ)])
    )
