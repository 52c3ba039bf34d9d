"""One animal: drawn at random, painted part by part from back to front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import copysign
from typing import NamedTuple

import numpy as np

from .anatomy import Body, draw_body
from .coat import Coat, draw_coat
from .drawing import (
    Array,
    Canvas,
    Chain,
    Frame,
    Solid,
    Window,
    saturate,
    smoothstep,
    solid,
    texture,
)
from .families import PLANS
from .species import Species

REACH = 0.06  # of the soft shadow that a part casts on those behind it
PARTS = ("body", "head", "legs", "ears", "tail")


@dataclass(frozen=True)
class Light:
    """A distant lamp and the sky around it.

    `direction` (3,) is a unit vector towards the lamp (z towards the viewer), `colour` (3,) that
    of the lamp and `ambient` (3,) that of the light from everywhere.
    """

    direction: tuple[float, float, float]
    colour: Array
    ambient: Array


@dataclass(frozen=True)
class Animal:
    """An individual of a species: its pose and its coat."""

    species: Species
    body: Body
    coat: Coat

    def paint(self, canvas: Canvas, frame: Frame, light: Light, first_label: int = 1) -> None:
        """Paint over the canvas; part k of `PARTS` is labelled `first_label` + k."""
        _Relief(self, canvas, frame).light(light, first_label)
        _paint_face(self, canvas, frame, light)

    def silhouette(self, xs: Array, ys: Array) -> Array:
        """Which points of the grid xs (w,) by ys (h,) the animal covers, bool (h, w)."""
        return _silhouette(self.body, xs, ys)


def draw_animal(species: Species, rng: np.random.Generator) -> Animal:
    """An individual of a species, at random."""
    return Animal(species, draw_body(PLANS[species.plan], rng), draw_coat(species, rng))


class Extent(NamedTuple):
    """Measures of a plan at rest: its area, its sides' and its top's distance from the origin."""

    area: float
    behind: float
    ahead: float
    height: float


@cache
def plan_extent(plan: str) -> Extent:
    """The extent of an animal of this plan at rest."""
    body = draw_body(PLANS[plan], None)
    low_x, high_x, low_y, _ = zip(*(chain.box() for chain in body.chains()), strict=True)
    behind, ahead, height = -min(low_x), max(high_x), -min(low_y)
    step = 0.01
    xs = np.arange(-behind, ahead, step).astype(np.float32)
    ys = np.arange(-height, 0.1, step).astype(np.float32)
    return Extent(float(_silhouette(body, xs, ys).sum()) * step**2, behind, ahead, height)


def _silhouette(body: Body, xs: Array, ys: Array) -> Array:
    return np.min([solid(chain, xs, ys).distance for chain in body.chains()], 0) < 0


class _Relief:
    """What is seen of one animal before the light falls on it.

    Parts are laid over each other from back to front; the channels hold, each multiplied by the
    coverage: the normal's x and y, the tone, the share of the mark colour, the share of the
    underside's colour, and the coverage itself.
    """

    def __init__(self, animal: Animal, canvas: Canvas, frame: Frame):
        self.animal, self.canvas, self.frame = animal, canvas, frame
        boxes = zip(*(chain.box() for chain in animal.body.chains()), strict=True)
        low_x, high_x, low_y, high_y = boxes
        box = (min(low_x), max(high_x), min(low_y), max(high_y))
        self.window = canvas.window(frame, box, margin=REACH)
        self.xs, self.ys = canvas.grid(frame, self.window)
        shape = (len(self.ys), len(self.xs))
        self.channels = np.zeros((6, *shape), np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.wander = texture(animal.coat.wander, self.xs, self.ys)
        body = animal.body
        if body.tail is not None:
            self.add("tail", body.tail, tone=0.92)
        for leg in body.legs_far:
            self.add("legs", leg, tone=0.66)
        self.trunk_distance = np.ones(shape, np.float32)
        self.add("body", body.trunk, contact=REACH)
        for leg in body.legs_near:
            self.add_near_leg(leg)
        self.add("ears", body.ear_far, tone=0.78)
        self.add("head", body.head, contact=REACH)
        self.add("ears", body.ear_near, contact=REACH / 2)

    def add(self, part: str, chain: Chain, tone: float = 1.0, contact: float = 0.0) -> None:
        """Lay a part on top, and darken what of the animal lies within `contact` behind it."""
        rows, columns = self.inner(chain, contact)
        shape = solid(chain, self.xs[columns], self.ys[rows])
        if contact:
            near = saturate(1 - shape.distance * np.float32(1 / contact))
            self.channels[2, rows, columns] *= 1 - 0.38 * near * near
        if part == "body":
            self.trunk_distance[rows, columns] = shape.distance
        self.lay(part, shape, (rows, columns), tone, None)
        self.labels[rows, columns][shape.distance < 0] = PARTS.index(part) + 1

    def add_near_leg(self, chain: Chain) -> None:
        """A leg on the near side, which grows out of the trunk instead of lying on it."""
        rows, columns = self.inner(chain)
        shape = solid(chain, self.xs[columns], self.ys[rows])
        depth = self.trunk_distance[rows, columns]
        self.lay("legs", shape, (rows, columns), 1.0, smoothstep(-0.17, -0.01, depth))
        emerged = np.maximum(shape.distance, -0.09 - depth) < 0
        self.labels[rows, columns][emerged] = PARTS.index("legs") + 1

    def inner(self, chain: Chain, margin: float = 0.0) -> Window:
        rows, columns = self.canvas.window(self.frame, chain.box(), margin)
        top, left = self.window[0].start, self.window[1].start
        return (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )

    def lay(
        self, part: str, shape: Solid, window: Window, tone: float, share: Array | None
    ) -> None:
        rows, columns = window
        coat = self.animal.coat
        wander = self.wander[rows, columns]
        values = np.empty((6, *shape.distance.shape), np.float32)
        values[0], values[1], values[2] = shape.across_x, shape.across_y, tone
        values[3] = coat.marks(part, self.xs[columns], self.ys[rows], shape.along, wander)
        values[4] = coat.underside(part, shape.across_y, shape.along)
        values[5] = 1
        coverage = self.canvas.coverage(self.frame, shape.distance)
        if share is not None:
            coverage = coverage * share
        under = self.channels[:, rows, columns]
        values -= under
        values *= coverage
        under += values

    def light(self, light: Light, first_label: int) -> None:
        """Colour the relief and lay it on the canvas."""
        coverage = self.channels[5]
        x, y, tone, marks, underside = self.channels[:5] / np.maximum(coverage, 1e-3)
        towards_viewer = np.sqrt(np.maximum(1 - x * x - y * y, 0))
        lamp_x, lamp_y, lamp_z = light.direction
        lamp_x *= self.frame.facing
        lambert = np.maximum(0.30 + 0.70 * (x * lamp_x + y * lamp_y + towards_viewer * lamp_z), 0)
        fur = texture(self.animal.coat.fur, self.xs, self.ys)
        tone *= 1 + 0.03 * fur
        ambient = (0.80 - 0.20 * y) * tone
        lambert *= tone
        shade = ambient * light.ambient[:, None, None] + lambert * light.colour[:, None, None]
        shade *= self.animal.coat.colour(marks, underside)
        self.canvas.paint(self.window, coverage, shade)
        seen = self.labels > 0
        self.canvas.labels[self.window][seen] = self.labels[seen] + (first_label - 1)


def _paint_face(animal: Animal, canvas: Canvas, frame: Frame, light: Light) -> None:
    """Eye and nose, as discs (centre, radius, colour) from back to front."""
    plan, palette = PLANS[animal.species.plan], animal.coat.palette
    skull, muzzle = animal.body.head.points
    width = animal.body.head.radii[-1]
    turn = animal.body.turn
    x, y, radius = plan.eye
    eye = skull + turn * complex(x, y)
    nose = muzzle + turn * width * (0.54 - 0.32j)
    glint = radius * complex(copysign(0.35, light.direction[0] * frame.facing), -0.36)
    base, mark, belly, iris = np.array(palette)
    dark = np.array([0.06, 0.05, 0.06])
    glow = light.ambient + 0.6 * light.colour
    discs = [
        (eye, 1.25 * radius, (0.45 * base + 0.35 * belly) * glow),
        (eye, 1.05 * radius, iris * glow),
        (eye + 0.12 * radius * turn, 0.78 * radius, dark),
        (eye + glint, 0.32 * radius, np.ones(3)),
        (nose, 0.37 * width, dark * 1.6),
    ]
    if animal.species.points:
        discs.insert(0, (eye + 0.012j, 2.0 * radius, mark * glow))
    centres, radii, colours = (list(column) for column in zip(*discs, strict=True))
    window = canvas.window(frame, Chain(centres, radii).box())
    xs, ys = canvas.grid(frame, window)
    x, y, radius = np.array(
        [[c.real for c in centres], [c.imag for c in centres], radii], np.float32
    )[:, :, None]
    square = ((xs - x) ** 2)[:, None, :] + ((ys - y) ** 2)[:, :, None]
    coverages = canvas.coverage(frame, np.sqrt(square) - radius[:, :, None])
    for coverage, colour in zip(coverages, np.array(colours, np.float32), strict=True):
        canvas.paint(window, coverage, colour[:, None, None])
