"""Images of one animal each, with its species and its parts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..sample import Sample, SampleDataset
from . import exotic
from .animal import PARTS, draw_animal, plan_extent
from .background import (
    Place,
    Stage,
    draw_place,
    draw_stage,
    paint_foreground,
    paint_scenery,
    paint_shadow,
)
from .chance import ANIMALS, EXOTIC_ANIMALS, EXOTIC_STAGE, SECOND_STAGE, STAGE, stream
from .drawing import Canvas
from .species import SPECIES, Species

LENGTHS = {"train": 20_000, "val": 2_000, "test": 2_000, "dev": 2_000}


class GeneratedImages(SampleDataset):
    """What single animals and scenes have in common: how many there are, and of what size."""

    image_size: int
    default_size: ClassVar[int]
    classes = tuple(species.name for species in SPECIES)

    def __init__(self, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size or self.default_size
        self.seed = seed
        self.length = limit or LENGTHS[split]

    def __len__(self) -> int:
        return self.length


class Creatures(GeneratedImages):
    """Generated images of single animals of twelve species.

    Item i of a split depends on (`seed`, `split`, i) only: `limit` sets how many there are, and
    `image_size` (pixels a side) at how fine a grid the same drawing is sampled. Masks are the
    whole animal, then those of its parts that are seen; the parts are disjoint and their union is
    the animal. A mask holds the pixels of which the animal covers more than half, on top.
    """

    name = "creatures"
    default_size = 96
    species: ClassVar[tuple[Species, ...]] = SPECIES
    stage_stream: ClassVar[int] = STAGE
    animal_stream: ClassVar[int] = ANIMALS

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        rng = stream(self.seed, self.split, index, self.animal_stream)
        label = int(rng.integers(len(self.species)))
        animal = draw_animal(self.species[label], rng)
        place, stage = self._setting(index)
        canvas = self._empty(place, stage)
        animal.paint(canvas, place.frame(plan_extent(animal.species.plan)), stage.light)
        paint_foreground(canvas, stage)
        seen = np.flatnonzero(np.bincount(canvas.labels.ravel(), minlength=len(PARTS) + 1)[1:])
        masks = np.concatenate(
            [canvas.labels[None] > 0, canvas.labels == (seen + 1)[:, None, None]]
        )
        return Sample(
            image=torch.from_numpy(canvas.to_uint8()),
            label=label,
            masks=torch.from_numpy(masks),
            mask_names=("animal", *(PARTS[k] for k in seen)),
            part_of=(None, *(0 for _ in seen)),
            path=f"{self.name}/{self.split}/{index}?seed={self.seed}",
        )

    def background(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """The image of item `index` without its animal."""
        place, stage = self._setting(self.check(index))
        canvas = self._empty(place, stage)
        paint_foreground(canvas, stage)
        return torch.from_numpy(canvas.to_uint8())

    def _setting(self, index: int) -> tuple[Place, Stage]:
        rng = stream(self.seed, self.split, index, self.stage_stream)
        place = draw_place(rng)
        return place, draw_stage(rng, place.ground)

    def _empty(self, place: Place, stage: Stage) -> Canvas:
        canvas = paint_scenery(stage, self.image_size)
        paint_shadow(canvas, place, stage.light)
        return canvas


class ExoticCreatures(Creatures):
    """The same of twelve other species, with body plans, patterns and palettes of their own.

    For transfer: its random streams are disjoint from those of `Creatures` of the same seed, so no
    background that a model was trained on comes back.
    """

    name = "creatures-exotic"
    classes = tuple(species.name for species in exotic.SPECIES)
    species = exotic.SPECIES
    stage_stream = EXOTIC_STAGE
    animal_stream = EXOTIC_ANIMALS


class RestagedCreatures(Creatures):
    """The animals of `Creatures`, item by item in the same pose and coat, in other places.

    Stage, light, place and size are drawn anew, from a stream of their own. Item i of the two make
    a pair for self-supervision that has nothing in common but the animal.
    """

    name = "creatures-restaged"
    stage_stream = SECOND_STAGE
