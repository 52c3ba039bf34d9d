"""Images of one to three animals that may stand in front of each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ..sample import Sample
from .animal import PARTS, Animal, draw_animal, plan_extent
from .background import (
    Place,
    Stage,
    draw_stage,
    paint_foreground,
    paint_scenery,
    paint_shadow,
)
from .chance import ANIMALS, PLACES, STAGE, between, stream
from .dataset import GeneratedImages
from .drawing import Array, Canvas, Frame, pixel_centres
from .species import SPECIES

VISIBLE = 0.5  # the least share of an animal that those in front of it must leave in view
GRID = 48  # pixels a side at which that share is measured, whatever the image's size


class _Scene(NamedTuple):
    """A stage and, from back to front, the animals and their places."""

    stage: Stage
    animals: list[Animal]
    places: list[Place]

    def frames(self) -> list[Frame]:
        pairs = zip(self.animals, self.places, strict=True)
        return [place.frame(plan_extent(animal.species.plan)) for animal, place in pairs]


class CreatureScenes(GeneratedImages):
    """Generated images of one to three animals, from back to front in the order of the masks.

    Item i of a split depends on (`seed`, `split`, i) only. Masks are what is seen of each animal,
    named by its species; there is no label. At least half of each animal stays in view behind
    the others, or the places are drawn again.
    """

    name = "creatures-scenes"
    default_size = 224

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        scene = self._draw(index)
        canvas = self._paint(scene)
        whose = _owners(canvas)
        seen = [k for k in range(len(scene.animals)) if (whose == k).any()]
        return Sample(
            image=torch.from_numpy(canvas.to_uint8()),
            label=None,
            masks=torch.from_numpy(np.stack([whose == k for k in seen])),
            mask_names=tuple(scene.animals[k].species.name for k in seen),
            path=f"{self.name}/{self.split}/{index}?seed={self.seed}",
        )

    def parts(self, index: int) -> list[tuple[Bool[Tensor, "m H W"], tuple[str, ...]]]:
        """For each mask of item `index`, the masks and names of the parts that make it up."""
        canvas = self._paint(self._draw(self.check(index)))
        result = []
        for k in np.unique(_owners(canvas)):
            if k < 0:
                continue
            own = canvas.labels.astype(int) - (1 + k * len(PARTS))
            seen = [part for part in range(len(PARTS)) if (own == part).any()]
            masks = torch.from_numpy(np.stack([own == part for part in seen]))
            result.append((masks, tuple(PARTS[part] for part in seen)))
        return result

    def background(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """The image of item `index` without its animals."""
        scene = self._draw(self.check(index))
        canvas = self._empty(scene)
        paint_foreground(canvas, scene.stage)
        return torch.from_numpy(canvas.to_uint8())

    def _paint(self, scene: _Scene) -> Canvas:
        canvas = self._empty(scene)
        for k, (animal, frame) in enumerate(zip(scene.animals, scene.frames(), strict=True)):
            animal.paint(canvas, frame, scene.stage.light, first_label=1 + k * len(PARTS))
        paint_foreground(canvas, scene.stage)
        return canvas

    def _empty(self, scene: _Scene) -> Canvas:
        canvas = paint_scenery(scene.stage, self.image_size)
        for place in scene.places:
            paint_shadow(canvas, place, scene.stage.light)
        return canvas

    def _draw(self, index: int) -> _Scene:
        rng = stream(self.seed, self.split, index, STAGE)
        stage = draw_stage(rng, between(rng, 0.75, 0.95))
        rng = stream(self.seed, self.split, index, ANIMALS)
        species = rng.integers(len(SPECIES), size=rng.integers(1, 4))
        animals = [draw_animal(SPECIES[k], rng) for k in species]
        rng = stream(self.seed, self.split, index, PLACES)
        while True:
            places = sorted(
                (_draw_place(rng, stage.horizon or 0.3) for _ in animals),
                key=lambda place: place.ground,
            )
            scene = _Scene(stage, animals, places)
            if _least_visible(scene) >= VISIBLE:
                return scene


def _draw_place(rng: np.random.Generator, horizon: float) -> Place:
    """A place between the horizon and the lower edge; what stands nearer is larger."""
    ground = between(rng, max(horizon + 0.12, 0.45), 0.97)
    area = between(rng, 0.07, 0.17) * (0.35 + 0.65 * (ground / 0.97) ** 2)
    return Place(area, rng.random(), ground, 1 if rng.random() < 0.5 else -1)


def _owners(canvas: Canvas) -> Array:
    """Which animal each pixel belongs to, (N, N), -1 for none."""
    return (canvas.labels.astype(int) + len(PARTS) - 1) // len(PARTS) - 1


def _least_visible(scene: _Scene) -> float:
    """The smallest share of any animal that is not behind another."""
    centres = pixel_centres(GRID)
    pairs = zip(scene.animals, scene.frames(), strict=True)
    shapes = [animal.silhouette(*frame.to_local(centres, centres)) for animal, frame in pairs]
    hidden = np.zeros((GRID, GRID), bool)
    shares = []
    for shape in reversed(shapes):
        shares.append((shape & ~hidden).sum() / max(shape.sum(), 1))
        hidden |= shape
    return min(shares)
