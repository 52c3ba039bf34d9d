"""The same images under two labels: which parts the animal has, or which coat it wears."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import sqrt
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ..sample import Sample
from .anatomy import Body, draw_body
from .animal import PARTS, Animal, plan_extent
from .background import Place, Stage, draw_stage, paint_foreground, paint_scenery, paint_shadow
from .chance import (
    MIXED_COATS,
    MIXED_FUR,
    MIXED_PARTS,
    MIXED_PLACES,
    MIXED_POSES,
    MIXED_STAGE,
    between,
    stream,
)
from .coat import draw_coat
from .dataset import GeneratedImages
from .drawing import Box, Canvas, Chain, Frame, solid
from .mixtures import (
    COAT_CLASSES,
    COATS,
    PART_BITS,
    PART_CLASSES,
    PLANS,
    POSES,
    VARIANTS,
)
from .species import Species

MUZZLE = 0.55
"""Where along the head, from the middle of the skull to the nose, the muzzle begins."""
AREAS = (0.18, 0.34)
"""Least and greatest share of the image that an animal covers, where there is room for it."""
EDGE = 0.01
"""Share of the image's side that is left free at each edge."""


class MixedCreatures(GeneratedImages):
    """Large animals of mixed parts in any coat; subclasses say what the label asks for.

    Item i of a split depends on (`seed`, `split`, i) only, and is the same image in each of the
    two data sets. Parts, coat, pose, place (with size, facing and tilt) and stage are drawn from
    streams of their own, so each is independent of the others.

    Masks are the whole animal; then its parts body, head, legs, ears and tail as far as they are
    seen, which are disjoint and make up the animal; then the muzzle, a part of the head.
    """

    default_size = 84
    poses: ClassVar[str] = ""
    """Of `POSES`."""

    def __getitem__(self, index: int) -> Sample:
        index = self.check(index)
        return self.with_classes(index, *self._drawn_classes(index))

    def with_classes(self, index: int, parts: int, coat: int) -> Sample:
        """Item `index` as it would be with other parts or another coat, all else alike.

        Parameters
        ----------
        index : of the item.
        parts, coat : places in the classes of `creatures-parts` and of `creatures-coats`.

        Raises IndexError for an item or a class that is not there.

        Examples
        --------
        >>> from crate_analysis import load_dataset
        >>> dataset = load_dataset("creatures-parts", limit=4)
        >>> sample = dataset.with_classes(0, parts=15, coat=0)
        >>> dataset.classes[sample.label]
        'hare-ears bear-legs hare-tail boar-muzzle'
        """
        index = self.check(index)
        for name, given in (("parts", parts), ("coat", coat)):
            if not 0 <= given < 16:
                raise IndexError(f"{name}={given} is none of the 16 classes, 0 to 15")
        pattern, palette = COATS[coat]
        name = PART_CLASSES[parts]
        species = Species(name, name + self.poses, pattern, palette)
        fur = draw_coat(species, self._stream(index, MIXED_FUR))
        animal = Animal(species, self._body(index, parts), fur)
        place, stage = self._setting(index)
        frame = self._frame(place)
        canvas = self._empty(place, stage)
        animal.paint(canvas, frame, stage.light)
        paint_foreground(canvas, stage)
        seen = np.flatnonzero(np.bincount(canvas.labels.ravel(), minlength=len(PARTS) + 1)[1:])
        names = ["animal", *(PARTS[k] for k in seen)]
        masks = [canvas.labels > 0, *(canvas.labels == k + 1 for k in seen)]
        part_of: list[int | None] = [None, *(0 for _ in seen)]
        muzzle = _muzzle(animal, canvas, frame)
        if muzzle.any():
            names.append("muzzle")
            masks.append(muzzle)
            part_of.append(names.index("head"))
        return Sample(
            image=torch.from_numpy(canvas.to_uint8()),
            label=self._label(parts, coat),
            masks=torch.from_numpy(np.stack(masks)),
            mask_names=tuple(names),
            part_of=tuple(part_of),
            path=f"{self.name}/{self.split}/{index}?seed={self.seed}",
        )

    def twin(self, index: int, part: str) -> Sample:
        """Item `index` with the other variant of one part, all else alike.

        Raises IndexError for an item that is not there and ValueError for a part that does not
        vary.

        >>> from crate_analysis import load_dataset
        >>> dataset = load_dataset("creatures-parts", limit=1)
        >>> dataset.classes[dataset[0].label], dataset.classes[dataset.twin(0, "tail").label]
        ('hare-ears bear-legs cat-tail boar-muzzle', 'hare-ears bear-legs hare-tail boar-muzzle')
        """
        if part not in VARIANTS:
            raise ValueError(f"{part!r} does not vary; {', '.join(VARIANTS)} do")
        parts, coat = self._drawn_classes(self.check(index))
        varies = list(VARIANTS).index(part)
        bits = tuple(bit ^ (k == varies) for k, bit in enumerate(PART_BITS[parts]))
        return self.with_classes(index, PART_BITS.index(bits), coat)

    def background(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """The image of item `index` without its animal."""
        place, stage = self._setting(self.check(index))
        canvas = self._empty(place, stage)
        paint_foreground(canvas, stage)
        return torch.from_numpy(canvas.to_uint8())

    @staticmethod
    def _label(parts: int, coat: int) -> int:
        raise NotImplementedError

    def _stream(self, index: int, purpose: int) -> np.random.Generator:
        return stream(self.seed, self.split, index, purpose)

    def _drawn_classes(self, index: int) -> tuple[int, int]:
        parts = self._stream(index, MIXED_PARTS).integers(len(PART_CLASSES))
        return int(parts), int(self._stream(index, MIXED_COATS).integers(len(COATS)))

    def _body(self, index: int, parts: int) -> Body:
        tilt = POSES[self.poses].tilt
        rng = self._stream(index, MIXED_POSES)
        angle = between(rng, -tilt, tilt)  # before the body, whose draws its plan may number
        plan = PLANS[PART_CLASSES[parts] + self.poses]
        return draw_body(plan, rng).turned(angle, complex(0, -0.5))

    def _setting(self, index: int) -> tuple[Place, Stage]:
        # room is left for the first and the last mixture, which between them have all variants:
        # so the place says nothing of the parts
        boxes = [_box(self._body(index, parts)) for parts in (0, len(PART_CLASSES) - 1)]
        place = _draw_place(self._stream(index, MIXED_PLACES), _around(boxes), self._mean_area())
        return place, draw_stage(self._stream(index, MIXED_STAGE), place.ground)

    def _frame(self, place: Place) -> Frame:
        """The frame of an animal at a place, the same whatever its parts."""
        return Frame(place.x, place.ground, sqrt(place.area / self._mean_area()), place.facing)

    @classmethod
    @cache
    def _mean_area(cls) -> float:
        """Of an animal at rest, over all mixtures."""
        areas = [plan_extent(name + cls.poses).area for name in PART_CLASSES]
        return float(np.mean(areas))

    def _empty(self, place: Place, stage: Stage) -> Canvas:
        canvas = paint_scenery(stage, self.image_size)
        paint_shadow(canvas, place, stage.light)
        return canvas


class PartCreatures(MixedCreatures):
    """The label says whose ears, legs, tail and muzzle the animal has, and nothing of its coat."""

    name = "creatures-parts"
    classes = PART_CLASSES
    parts: ClassVar[tuple[str, ...]] = tuple(VARIANTS)
    """The parts that vary, in the order of `bits`."""
    bits: ClassVar[Bool[Tensor, "c k"]] = torch.tensor(PART_BITS, dtype=torch.bool)
    """For each class, and each of `parts`, whether it is the second of its two variants."""

    @staticmethod
    def _label(parts: int, coat: int) -> int:
        return parts


class WidePartCreatures(PartCreatures):
    """The same in wider poses: animals that rear, bow and turn their heads further.

    Parts, coats and stages are those of `PartCreatures`, item by item.
    """

    name = "creatures-parts-wide"
    poses = ", wide"


class CoatCreatures(MixedCreatures):
    """The same images; the label says palette and pattern of the coat, and nothing of the parts."""

    name = "creatures-coats"
    classes = COAT_CLASSES

    @staticmethod
    def _label(parts: int, coat: int) -> int:
        return coat


def _box(body: Body) -> Box:
    """What of an animal must lie in the image: all, but half of a long tail."""
    if body.tail is not None:
        short = Chain(body.tail.points[:3], body.tail.radii[:3])
        body = body._replace(tail=short)
    return _around([chain.box() for chain in body.chains()])


def _around(boxes: Sequence[Box]) -> Box:
    low_x, high_x, low_y, high_y = zip(*boxes, strict=True)
    return min(low_x), max(high_x), min(low_y), max(high_y)


def _draw_place(rng: np.random.Generator, box: Box, mean_area: float) -> Place:
    """A place, evenly among those that keep the box, in a plan's units, inside the image."""
    low_x, high_x, low_y, high_y = box
    facing = 1 if rng.random() < 0.5 else -1
    if facing < 0:
        low_x, high_x = -high_x, -low_x
    room = 1 - 2 * EDGE
    wanted = sqrt(between(rng, *AREAS) / mean_area)
    unit = min(wanted, room / (high_x - low_x), room / (high_y - low_y))
    return Place(
        area=unit**2 * mean_area,
        x=between(rng, EDGE - low_x * unit, 1 - EDGE - high_x * unit),
        ground=between(rng, EDGE - low_y * unit, 1 - EDGE - high_y * unit),
        facing=facing,
    )


def _muzzle(animal: Animal, canvas: Canvas, frame: Frame) -> np.ndarray:
    """The pixels of the muzzle that are seen, bool (N, N)."""
    xs, ys = frame.to_local(canvas.centres, canvas.centres)
    head = canvas.labels == PARTS.index("head") + 1
    return head & (solid(animal.body.head, xs, ys).along > MUZZLE)
