"""One animal: drawn at random, painted part by part from back to front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .anatomy import Body, draw_body, rotation
from .coat import Coat, draw_coat
from .drawing import Array, Canvas, Chain, Frame, Solid, Window, smoothstep, solid, texture
from .species import PLANS, Species

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
    species: Species
    body: Body
    coat: Coat

    def paint(self, canvas: Canvas, frame: Frame, light: Light, first_label: int = 1) -> None:
        """Paint over the canvas; part k of `PARTS` is labelled `first_label` + k."""
        _Brush(self, canvas, frame, light, first_label).run()


def draw_animal(species: Species, rng: np.random.Generator) -> Animal:
    return Animal(species, draw_body(PLANS[species.plan], rng), draw_coat(species, rng))


@cache
def plan_area(plan: str) -> float:
    """Area of an animal of this plan at rest, in square units."""
    body = draw_body(PLANS[plan], None)
    ys = np.linspace(-1.8, 0.2, 160, dtype=np.float32)
    xs = np.linspace(-1.2, 1.4, 208, dtype=np.float32)
    covered = np.min([solid(chain, xs, ys).distance for chain in body.chains()], 0) < 0
    return float(covered.mean() * 2.0 * 2.6)


class _Brush:
    """Carries what painting the parts of one animal has in common."""

    def __init__(self, animal: Animal, canvas: Canvas, frame: Frame, light: Light, label: int):
        self.animal, self.canvas, self.frame, self.light = animal, canvas, frame, light
        self.labels = {part: label + k for k, part in enumerate(PARTS)}
        self.own = (label, label + len(PARTS) - 1)
        xs, ys = frame.to_local(canvas.centres, canvas.centres)
        chains = animal.body.chains()
        everything = Chain(
            np.concatenate([chain.points for chain in chains]),
            np.concatenate([chain.radii for chain in chains]),
        )
        self.outer = canvas.window(frame, everything, margin=0.1)
        rows, columns = self.outer
        self.wander = texture(animal.coat.wander, xs[columns], ys[rows])
        self.fur = texture(animal.coat.fur, xs[columns], ys[rows])
        x, y, z = light.direction
        self.lamp = (np.float32(x * frame.facing), np.float32(y), np.float32(z))

    def run(self) -> None:
        body = self.animal.body
        if body.tail is not None:
            self.part("tail", body.tail, dim=0.92)
        for leg in body.legs_far:
            self.part("legs", leg, dim=0.66)
        trunk = self.part("body", body.trunk, contact=0.06)
        for leg in body.legs_near:
            self.near_leg(leg, *trunk)
        self.part("ears", body.ear_far, dim=0.78)
        self.part("head", body.head, contact=0.05)
        self.part("ears", body.ear_near, contact=0.03)
        self.face()

    def part(
        self, name: str, chain: Chain, dim: float = 1.0, contact: float = 0.0
    ) -> tuple[Solid, Window]:
        """Paint one part, and darken what of the animal lies within `contact` behind it."""
        window = self.canvas.window(self.frame, chain, contact)
        shape = self.canvas.solid(self.frame, chain, window)
        if contact:
            self.shadow(window, shape.distance, contact)
        coverage = self.canvas.coverage(self.frame, shape.distance)
        self.canvas.paint(window, coverage, self.lit(name, shape, window, dim), self.labels[name])
        return shape, window

    def near_leg(self, chain: Chain, trunk: Solid, trunk_window: Window) -> None:
        """A leg on the near side, which grows out of the trunk instead of lying on it."""
        window = self.canvas.window(self.frame, chain)
        shape = self.canvas.solid(self.frame, chain, window)
        depth = np.full(shape.distance.shape, 1.0, np.float32)
        place, found = _overlap(window, trunk_window)
        depth[place] = trunk.distance[found]
        emerged = smoothstep(-0.17, -0.01, depth)
        coverage = self.canvas.coverage(self.frame, shape.distance)
        colour = self.lit("legs", shape, window, 1.0)
        self.canvas.paint(window, coverage * emerged, colour, None)
        visible = np.maximum(shape.distance, -0.09 - depth) < 0
        self.canvas.labels[window][visible] = self.labels["legs"]

    def shadow(self, window: Window, distance: Array, reach: float) -> None:
        labels = self.canvas.labels[window]
        behind = (labels >= self.own[0]) & (labels <= self.own[1])
        near = np.clip(1 - distance * (1 / reach), 0, 1)
        self.canvas.shade(window, 1 - 0.38 * near * near * behind)

    def lit(self, name: str, shape: Solid, window: Window, dim: float) -> Array:
        """Colour (3, h, w) of a part under the light."""
        inner, _ = _overlap(self.outer, window)
        wander, fur = self.wander[inner], self.fur[inner]
        xs, ys = self.frame.to_local(self.canvas.centres[window[1]], self.canvas.centres[window[0]])
        coat = self.animal.coat
        marks = coat.marks(name, xs, ys, shape.along, wander)
        albedo = coat.colour(name, marks, shape.across_y, fur)
        return albedo * self.shading(shape, dim)

    def shading(self, shape: Solid, dim: float) -> Array:
        squared = shape.across_x**2 + shape.across_y**2
        facing = np.sqrt(np.clip(1 - squared, 0, 1))
        x, y, z = self.lamp
        lambert = shape.across_x * x + shape.across_y * y + facing * z
        lambert = np.clip(0.30 + 0.70 * lambert, 0, None) * dim
        ambient = (0.80 - 0.20 * shape.across_y) * dim
        light = self.light
        return ambient * light.ambient[:, None, None] + lambert * light.colour[:, None, None]

    def face(self) -> None:
        animal = self.animal
        plan, body, coat = PLANS[animal.species.plan], animal.body, animal.coat
        turn = rotation(body.pitch)
        x, y, radius = plan.eye
        eye = body.skull + turn @ (x, y)
        glow = self.light.ambient + 0.6 * self.light.colour
        dark = np.array([0.07, 0.06, 0.07], np.float32)
        if animal.species.points:
            self.disc(eye + (0.0, 0.012), 2.1 * radius, np.array(coat.palette.mark) * glow)
        pale = sum(coat.palette.base) > 0.9
        rim = np.array(coat.palette.belly) if not pale else np.array(coat.palette.base) * 0.72
        self.disc(eye, 1.3 * radius, rim * glow)
        self.disc(eye, 1.08 * radius, np.array(coat.palette.eye) * glow)
        self.disc(eye + turn @ (0.15 * radius, 0), 0.74 * radius, dark)
        glint = np.array([0.35 * self.frame.facing * np.sign(self.lamp[0]), -0.38]) * radius
        self.disc(eye + glint * (self.frame.facing, 1), 0.30 * radius, np.ones(3))
        tip, width = body.head.points[-1], body.head.radii[-1]
        nose = tip + turn @ (0.72 * width, -0.42 * width)
        self.disc(nose, 0.40 * width, dark * 1.6)

    def disc(self, centre: Array, radius: float, colour: Array) -> None:
        chain = Chain(np.array([centre, centre]), np.array([radius, radius]))
        window = self.canvas.window(self.frame, chain)
        xs, ys = self.frame.to_local(self.canvas.centres[window[1]], self.canvas.centres[window[0]])
        distance = np.hypot(xs - centre[0], ys[:, None] - centre[1]) - radius
        coverage = self.canvas.coverage(self.frame, distance).astype(np.float32)
        self.canvas.paint(window, coverage, colour.astype(np.float32)[:, None, None], None)


def _overlap(window: Window, other: Window) -> tuple[Window, Window]:
    """The common pixels of two windows, as slices of the one and of the other."""
    place, found = [], []
    for a, b in zip(window, other, strict=True):
        low, high = max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start))
        place.append(slice(low - a.start, high - a.start))
        found.append(slice(low - b.start, high - b.start))
    return (place[0], place[1]), (found[0], found[1])
