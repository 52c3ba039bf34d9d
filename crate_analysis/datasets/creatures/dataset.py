"""Pictures of one animal each, with its species and its parts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ..sample import Sample
from .animal import PARTS, draw_animal, plan_extent
from .background import Stage, draw_stage, paint_foreground, paint_scenery, paint_shadow
from .chance import stream
from .drawing import Canvas
from .species import SPECIES

LENGTHS = {"train": 20_000, "val": 2_000, "test": 2_000}
STAGE, ANIMAL = 0, 1  # the purposes of an item's random streams


class Creatures(Dataset[Sample]):
    """Generated pictures of single animals of twelve species.

    Item i of a split depends on (`seed`, `split`, i) only: `limit` sets how many there are, and
    `image_size` (pixels a side) at how fine a grid the same drawing is sampled. Masks are the
    whole animal, then those of its parts that are seen; the parts are disjoint and their union is
    the animal. A mask holds the pixels of which the animal covers more than half, on top.
    """

    name = "creatures"
    classes = tuple(species.name for species in SPECIES)

    def __init__(self, split: str, image_size: int, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        self.length = LENGTHS[split] if limit is None else limit

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        index = self._check(index)
        rng = stream(self.seed, self.split, index, ANIMAL)
        label = int(rng.integers(len(SPECIES)))
        animal = draw_animal(SPECIES[label], rng)
        stage = self._stage(index)
        canvas = self._empty(stage)
        animal.paint(canvas, stage.frame(plan_extent(animal.species.plan)), stage.light)
        paint_foreground(stage, canvas)
        present = np.bincount(canvas.labels.ravel(), minlength=len(PARTS) + 1)[1:] > 0
        seen = np.flatnonzero(present)
        masks = np.concatenate(
            [canvas.labels[None] > 0, canvas.labels == (seen + 1)[:, None, None]]
        )
        return Sample(
            image=torch.from_numpy(canvas.to_uint8()),
            label=label,
            masks=torch.from_numpy(masks),
            mask_names=("animal", *(PARTS[k] for k in seen)),
            path=f"{self.name}/{self.split}/{index}?seed={self.seed}",
        )

    def background(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """The picture of item `index` without its animal."""
        stage = self._stage(self._check(index))
        canvas = self._empty(stage)
        paint_foreground(stage, canvas)
        return torch.from_numpy(canvas.to_uint8())

    def _check(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)} in {self.name}, split {self.split!r}")
        return index % len(self)

    def _stage(self, index: int) -> Stage:
        return draw_stage(stream(self.seed, self.split, index, STAGE))

    def _empty(self, stage: Stage) -> Canvas:
        canvas = paint_scenery(stage, self.image_size)
        paint_shadow(stage, canvas)
        return canvas
