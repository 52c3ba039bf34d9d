"""Stages, their scenery and light, and the places where animals will stand.

Neither knows anything of the animals: they are drawn from a random stream of their own, and even
the shadow on the ground depends on the light and the place alone. So the image with the animal
taken out carries no information about the species.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin, sqrt
from typing import NamedTuple

import numpy as np

from .animal import Extent, Light
from .chance import between
from .drawing import (
    Array,
    Canvas,
    Chain,
    Frame,
    Waves,
    capsules,
    draw_waves,
    pixel_centres,
    saturate,
    smoothstep,
    texture,
)

# Colours of the ground near and far, of the hills, and of the sky above and at the horizon.
SCENERIES = tuple(
    np.array([[int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] for colour in row.split()])
    for row in (
        "#6b8a42 #99ab66 #708a75 #85b5e0 #dbe8ed",
        "#ba9c5c #d6bf82 #99916e #99bdd6 #f2e3c7",
        "#dbe6f0 #c2d4e6 #94a8bf #99b5d4 #e0e3eb",
        "#b27d5e #cfa17d #8c6b70 #807aa1 #f0bd99",
        "#4f5e38 #63754c #425947 #6b8770 #b2c299",
        "#8c8a85 #a8a6a1 #7a808a #a8b5c4 #dededb",
        "#d6c4a1 #75a6b2 #809ca8 #8cbdde #e6ebe6",
        "#806675 #9e8791 #736e87 #9499b8 #e6d6d6",
    )
)


class Pebble(NamedTuple):
    """An ellipse: its centre, its two radii, and its colour (3,)."""

    x: float
    y: float
    across: float
    down: float
    colour: Array


class Tuft(NamedTuple):
    """Blades of grass: feet and tips x + iy, and the colour (3,)."""

    feet: list[complex]
    tips: list[complex]
    colour: Array


@dataclass(frozen=True)
class Stage:
    """Everything about an image but its animals."""

    colours: Array  # (5, 3), as `SCENERIES`, with the light on them
    horizon: float | None  # height of the horizon; None for a wall without depth
    slow: Waves
    middle: Waves
    fine: Waves
    marbling: tuple[float, float, float]  # strength, and a direction in radians a unit
    contrast: float
    pebbles: tuple[Pebble, ...]
    tufts: tuple[Tuft, ...]
    light: Light


class Place(NamedTuple):
    """Where an animal stands, whatever its species."""

    area: float  # share of the image that it should cover
    x: float
    ground: float
    facing: int

    def frame(self, extent: Extent) -> Frame:
        """The frame of an animal of that extent: in the middle of the place, inside the image."""
        width = extent.behind + extent.ahead
        unit = min(
            sqrt(self.area / extent.area), 0.98 / width, (self.ground - 0.01) / extent.height
        )
        middle = (extent.ahead - extent.behind) / 2 * unit * self.facing
        x = min(max(self.x, width / 2 * unit), 1 - width / 2 * unit)
        return Frame(x - middle, self.ground, unit, self.facing)


def draw_place(rng: np.random.Generator) -> Place:
    """A place for a single animal, which fills a good part of the image."""
    area = 0.09 * (0.23 / 0.09) ** rng.random()
    side = sqrt(area)
    room = max(0.5 - 1.2 * side, 0.02)
    return Place(
        area=area,
        x=between(rng, 0.5 - room, 0.5 + room),
        ground=between(rng, min(1.75 * side + 0.04, 0.92), 0.96),
        facing=1 if rng.random() < 0.5 else -1,
    )


def draw_stage(rng: np.random.Generator, ground: float) -> Stage:
    """A stage whose ground is in view at height `ground`, with stones and grass around there."""
    light = _draw_light(rng)
    outdoors = rng.random() < 0.65
    colours = SCENERIES[rng.integers(len(SCENERIES))]
    if not outdoors:
        colours = colours[rng.permutation(5)]
    grey = colours.mean(1, keepdims=True)
    colours = grey + (colours - grey) * between(rng, 0.65, 1.0)
    colours = colours + rng.normal(0, 0.03, (5, 3)) + between(rng, -0.05, 0.05)
    colours *= 0.72 + 0.42 * (light.ambient + 0.55 * light.colour)
    return Stage(
        colours=colours.astype(np.float32),
        horizon=between(rng, 0.18, 0.92) * ground if outdoors else None,
        slow=draw_waves(rng, 0.5, 1.6, 8, between(rng, 1.0, 1.6)),
        middle=draw_waves(rng, 2.0, 7.0, 12, between(rng, 1.0, 3.0)),
        fine=draw_waves(rng, 9.0, 34.0, 24, between(rng, 1.0, 2.5)),
        marbling=(between(rng, 0.6, 1.6), between(rng, -9.0, 9.0), between(rng, -9.0, 9.0)),
        contrast=between(rng, 0.5, 1.0),
        pebbles=tuple(_draw_pebble(rng, ground) for _ in range(rng.integers(4))),
        tufts=tuple(_draw_tuft(rng, ground, colours[0]) for _ in range(rng.integers(4))),
        light=light,
    )


def _draw_light(rng: np.random.Generator) -> Light:
    """Sunlight from above, from the left or the right, warm or cool, hard or soft."""
    side = between(rng, -1.1, 1.1)
    direction = np.array([sin(side), -cos(side), 0.65])
    direction /= sqrt(direction @ direction)
    strength = between(rng, 0.45, 0.85)
    warmth = np.array([1.0, 0.0, -1.0]) * between(rng, -0.05, 0.10)
    return Light(
        tuple(direction.tolist()),
        (strength * (1 + warmth)).astype(np.float32),
        ((1.0 - 0.62 * strength) * (1 - 0.6 * warmth)).astype(np.float32),
    )


def _draw_pebble(rng: np.random.Generator, ground: float) -> Pebble:
    radius = between(rng, 0.010, 0.028)
    colour = between(rng, 0.40, 0.75) + rng.normal(0, 0.03, 3)
    return Pebble(
        rng.random(),
        between(rng, max(ground - 0.10, 0.5), 1.0),
        radius * between(rng, 1.0, 1.5),
        radius * between(rng, 0.7, 1.0),
        colour.astype(np.float32),
    )


def _draw_tuft(rng: np.random.Generator, ground: float, colour: Array) -> Tuft:
    foot = complex(rng.random(), ground + between(rng, 0.0, 0.06))
    size = between(rng, 0.04, 0.10)
    lean, height, offset = rng.random((3, 6)) - 0.5
    lean = np.linspace(-0.7, 0.7, 6) + 0.4 * lean
    feet = foot + 0.014 * lean + 0.012 * offset
    tips = feet - 1j * (size * (0.8 + 0.4 * height)) * np.exp(1j * lean)
    shade = np.clip(colour * between(rng, 0.75, 1.0) + (-0.05, 0.03, -0.06), 0, 1)
    return Tuft(feet.tolist(), tips.tolist(), shade.astype(np.float32))


def paint_scenery(stage: Stage, size: int) -> Canvas:
    """All that lies behind the animals."""
    if stage.horizon is None:
        canvas = Canvas(_wall(stage, size))
    else:
        canvas = Canvas(_land(stage, stage.horizon, size))
    for pebble in stage.pebbles:
        _paint_pebble(canvas, pebble, stage.light)
    return canvas


def _wall(stage: Stage, size: int) -> Array:
    """A marbled surface (3, size, size)."""
    centres = pixel_centres(size)
    first, second, veil = stage.colours[:3, :, None, None]
    slow = texture(stage.slow, centres, centres)
    middle = texture(stage.middle, centres, centres)
    fine = texture(stage.fine, centres, centres)
    strength, across, down = stage.marbling
    turn = strength * (slow + 0.35 * middle) + across * centres + down * centres[:, None]
    rgb = first + (0.5 + 0.5 * np.sin(turn)) * (second - first)
    rgb += smoothstep(0.2, 1.6, slow + 0.5 * middle) * (0.7 * stage.contrast) * (veil - rgb)
    rgb *= 1 + (0.035 * stage.contrast) * fine
    return rgb


def _land(stage: Stage, horizon: float, size: int) -> Array:
    """Sky, hills and ground (3, size, size)."""
    centres = pixel_centres(size)
    near, far, hill, zenith, haze = stage.colours[:, :, None, None]
    contrast = stage.contrast
    slow = texture(stage.slow, centres, centres)
    middle = texture(stage.middle, centres, centres)
    swell = texture(stage.slow, centres, np.zeros(1, np.float32))[0]
    crest = horizon - 0.07 - 0.035 * swell
    shore = horizon + 0.006 * swell

    def row(height: np.float32, beyond: int) -> int:
        return int(min(max(float(height) * size + beyond, 0), size))

    peak, top, bottom = row(crest.min(), -1), row(shore.min(), -1), row(shore.max(), 2)
    ys = centres[:, None]
    rgb = np.empty((3, size, size), np.float32)
    sky = rgb[:, :bottom]
    np.add(
        zenith + smoothstep(0.0, 1.0, ys[:bottom] / horizon) * (haze - zenith),
        (0.10 * contrast) * smoothstep(0.2, 2.0, slow[:bottom] + 0.4 * middle[:bottom]),
        out=sky,
    )
    hills = rgb[:, peak:bottom]
    hills += saturate(0.5 + (ys[peak:bottom] - crest) * size) * (0.7 * hill + 0.3 * haze - hills)
    fine = texture(stage.fine, centres, centres[top:])
    grain = 0.07 * slow[top:] + 0.05 * middle[top:] + 0.04 * fine
    depth = np.sqrt(saturate((ys[top:] - horizon) / (1.02 - horizon)))
    floor = (far + depth * (near - far)) * (1 + contrast * grain)
    edge = rgb[:, top:bottom]
    edge += saturate(0.5 + (ys[top:bottom] - shore) * size) * (floor[:, : bottom - top] - edge)
    rgb[:, bottom:] = floor[:, bottom - top :]
    return rgb


def paint_shadow(canvas: Canvas, place: Place, light: Light) -> None:
    """The shadow on the ground of a place, the same whatever stands there."""
    side = sqrt(place.area)
    x, y = place.x - 0.25 * side * light.direction[0], place.ground - 0.01
    across, down = 1.05 * side, 0.14 * side
    box = (x - 2.5 * across, x + 2.5 * across, y - 2.5 * down, y + 2.5 * down)
    rows, columns = canvas.window(_PICTURE, box)
    xs, ys = canvas.grid(_PICTURE, (rows, columns))
    dark = np.outer(np.exp(-(((ys - y) / down) ** 2)), np.exp(-(((xs - x) / across) ** 2)))
    depth = 0.30 + 0.25 * float(light.colour.mean())
    canvas.rgb[:, rows, columns] *= 1 - np.float32(depth) * dark


def paint_foreground(canvas: Canvas, stage: Stage) -> None:
    """Grass, which may hide a part of an animal."""
    for feet, tips, colour in stage.tufts:
        bones = [(foot, tip, 0.005, 0.001) for foot, tip in zip(feet, tips, strict=True)]
        outline = Chain([*feet, *tips], [0.005] * (len(feet) + len(tips)))
        window = canvas.window(_PICTURE, outline.box())
        xs, ys = canvas.grid(_PICTURE, window)
        distances, inside = capsules(bones, xs, ys)
        distance = distances.min(0)
        lit = colour[:, None, None] * (0.7 + 0.5 * inside[2].max(0))
        canvas.paint(window, canvas.coverage(_PICTURE, distance), lit)
        canvas.labels[window][distance < 0] = 0


def _paint_pebble(canvas: Canvas, pebble: Pebble, light: Light) -> None:
    x, y, across, down, colour = pebble
    window = canvas.window(_PICTURE, (x - across, x + across, y - down, y + down))
    xs, ys = canvas.grid(_PICTURE, window)
    xs, ys = (xs - x) * (1 / across), ((ys - y) * (1 / down))[:, None]
    distance = (np.sqrt(xs * xs + ys * ys) - 1) * down
    lamp_x, lamp_y, _ = light.direction
    tone = 0.72 + 0.35 * (lamp_x * xs + lamp_y * ys)
    lit = (colour * (light.ambient + light.colour))[:, None, None] * tone
    canvas.paint(window, canvas.coverage(_PICTURE, distance), lit)


_PICTURE = Frame(0.0, 0.0, 1.0)
