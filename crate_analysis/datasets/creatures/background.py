"""Stages: the scenery, the light, and the place where an animal will stand.

A stage knows nothing of the animal: it is drawn from a random stream of its own, and even the
shadow on the ground depends on the stage's light and place alone. So the picture with the animal
taken out carries no information about the species.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .animal import Light
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
    soft_spot,
    solid,
    texture,
)

# Colours of the ground near and far, of the hills, and of the sky above and at the horizon.
SCENERIES = np.array(
    [
        [(0.42, 0.54, 0.26), (0.60, 0.67, 0.40), (0.44, 0.54, 0.46), (0.52, 0.71, 0.88), (0.86, 0.91, 0.93)],
        [(0.73, 0.61, 0.36), (0.84, 0.75, 0.51), (0.60, 0.57, 0.43), (0.60, 0.74, 0.84), (0.95, 0.89, 0.78)],
        [(0.86, 0.90, 0.94), (0.76, 0.83, 0.90), (0.58, 0.66, 0.75), (0.60, 0.71, 0.83), (0.88, 0.89, 0.92)],
        [(0.70, 0.49, 0.37), (0.81, 0.63, 0.49), (0.55, 0.42, 0.44), (0.50, 0.48, 0.63), (0.94, 0.74, 0.60)],
        [(0.31, 0.37, 0.22), (0.39, 0.46, 0.30), (0.26, 0.35, 0.28), (0.42, 0.53, 0.44), (0.70, 0.76, 0.60)],
        [(0.55, 0.54, 0.52), (0.66, 0.65, 0.63), (0.48, 0.50, 0.54), (0.66, 0.71, 0.77), (0.87, 0.87, 0.86)],
        [(0.84, 0.77, 0.63), (0.46, 0.65, 0.70), (0.50, 0.61, 0.66), (0.55, 0.74, 0.87), (0.90, 0.92, 0.90)],
        [(0.50, 0.40, 0.46), (0.62, 0.53, 0.57), (0.45, 0.43, 0.53), (0.58, 0.60, 0.72), (0.90, 0.84, 0.84)],
    ],
    np.float32,
)


class Tuft(NamedTuple):
    """Blades of grass: complex feet and tips (s,) and the colour (3,)."""

    feet: Array
    tips: Array
    colour: Array


@dataclass(frozen=True)
class Stage:
    """Everything about a picture but its animal."""

    colours: Array  # (5, 3)
    horizon: float | None  # height of the horizon; None for a wall without depth
    slow: Waves
    middle: Waves
    fine: Waves
    marbling: tuple[float, float, float]  # strength, and a direction in radians a unit
    contrast: float
    pebbles: tuple[tuple[Chain, Array], ...]
    tufts: tuple[Tuft, ...]
    light: Light
    area: float  # share of the picture that an animal should cover
    x: float  # where it stands
    ground: float
    facing: int

    def frame(self, plan_area: float) -> Frame:
        """Where an animal stands whose shape covers `plan_area` square units."""
        return Frame(self.x, self.ground, float(np.sqrt(self.area / plan_area)), self.facing)


def draw_stage(rng: np.random.Generator, area: tuple[float, float] = (0.09, 0.23)) -> Stage:
    """A stage for an animal that covers about `area[0]` to `area[1]` of the picture."""
    share = float(np.exp(rng.uniform(np.log(area[0]), np.log(area[1]))))
    side = np.sqrt(share)
    room = max(0.5 - 1.2 * side, 0.02)
    x = 0.5 + rng.uniform(-room, room)
    ground = rng.uniform(min(1.75 * side + 0.04, 0.92), 0.96)
    outdoors = rng.random() < 0.65
    colours = SCENERIES[rng.integers(len(SCENERIES))]
    if not outdoors:
        colours = colours[rng.permutation(5)]
    grey = colours.mean(1, keepdims=True)
    colours = grey + (colours - grey) * rng.uniform(0.65, 1.0)
    colours = colours + rng.normal(0, 0.03, (5, 3)) + rng.uniform(-0.05, 0.05)
    side_light = rng.uniform(-1.1, 1.1)
    strength = rng.uniform(0.45, 0.85)
    warmth = np.array([1.0, 0.0, -1.0]) * rng.uniform(-0.05, 0.10)
    direction = np.array([np.sin(side_light), -np.cos(side_light), 0.65])
    direction /= np.linalg.norm(direction)
    dx, dy, dz = direction
    return Stage(
        colours=colours.astype(np.float32),
        horizon=float(rng.uniform(0.18, 0.92) * ground) if outdoors else None,
        slow=draw_waves(rng, 0.5, 1.6, 8, rng.uniform(1.0, 1.6)),
        middle=draw_waves(rng, 2, 7, 14, rng.uniform(1.0, 3.0)),
        fine=draw_waves(rng, 9, 34, 28, rng.uniform(1.0, 2.5)),
        marbling=(rng.uniform(0.6, 1.6), rng.uniform(-9, 9), rng.uniform(-9, 9)),
        contrast=rng.uniform(0.5, 1.0),
        pebbles=_draw_pebbles(rng, ground),
        tufts=_draw_tufts(rng, ground, colours[0]),
        light=Light(
            (float(dx), float(dy), float(dz)),
            (strength * (1 + warmth)).astype(np.float32),
            ((1.0 - 0.62 * strength) * (1 - 0.6 * warmth)).astype(np.float32),
        ),
        area=share,
        x=float(x),
        ground=float(ground),
        facing=1 if rng.random() < 0.5 else -1,
    )


def _draw_pebbles(rng: np.random.Generator, ground: float) -> tuple[tuple[Chain, Array], ...]:
    pebbles = []
    for _ in range(rng.integers(0, 4)):
        radius = rng.uniform(0.010, 0.026)
        x, y = rng.uniform(0, 1), rng.uniform(max(ground - 0.10, 0.5), 1.0)
        centre = complex(x, y)
        points = [centre, centre + radius * complex(rng.uniform(-1.2, 1.2), 0.25)]
        grey = rng.uniform(0.40, 0.75) + rng.normal(0, 0.03, 3)
        radii = [radius, radius * rng.uniform(0.6, 0.9)]
        pebbles.append((Chain(points, radii), grey.astype(np.float32)))
    return tuple(pebbles)


def _draw_tufts(rng: np.random.Generator, ground: float, colour: Array) -> tuple[Tuft, ...]:
    tufts = []
    for _ in range(rng.integers(0, 4)):
        count = rng.integers(4, 8)
        foot = complex(rng.uniform(0, 1), ground + rng.uniform(0.0, 0.06))
        lean = np.linspace(-0.7, 0.7, count) + rng.normal(0, 0.15, count)
        height = rng.uniform(0.04, 0.10) * rng.uniform(0.6, 1.0, count)
        feet = foot + 0.014 * lean + rng.normal(0, 0.004, count)
        tips = feet - 1j * height * np.exp(1j * lean)
        shade = np.clip(colour * rng.uniform(0.75, 1.0) + (-0.05, 0.03, -0.06), 0, 1)
        tufts.append(Tuft(feet, tips, shade.astype(np.float32)))
    return tuple(tufts)


def paint_scenery(stage: Stage, size: int) -> Canvas:
    """All that lies behind the animals."""
    centres = pixel_centres(size)
    near, far, hill, zenith, low = (c[:, None, None] for c in stage.colours)
    slow = texture(stage.slow, centres, centres)
    middle = texture(stage.middle, centres, centres)
    fine = texture(stage.fine, centres, centres)
    ys = centres[:, None]
    if stage.horizon is None:
        strength, kx, ky = stage.marbling
        mix = 0.5 + 0.5 * np.sin(strength * (slow + 0.35 * middle) + kx * centres + ky * ys)
        rgb = near + mix * (far - near)
        veil = smoothstep(0.2, 1.6, slow + 0.5 * middle) * (0.7 * stage.contrast)
        rgb += veil * (zenith - rgb)
        rgb *= 1 + (0.035 * stage.contrast) * fine
    else:
        ridge = texture(stage.slow, centres, np.zeros(1, np.float32))
        edge = 1.2 * size
        sky = zenith + smoothstep(0.0, 1.0, ys / stage.horizon) * (low - zenith)
        rgb = sky + (0.10 * stage.contrast) * smoothstep(0.2, 2.0, slow + 0.4 * middle)
        crest = stage.horizon - 0.07 - 0.035 * ridge
        rgb += saturate(0.5 + (ys - crest) * edge) * (0.7 * hill + 0.3 * low - rgb)
        depth = saturate((ys - stage.horizon) / (1.02 - stage.horizon))
        floor = far + np.sqrt(depth) * (near - far)
        floor = floor * (1 + stage.contrast * (0.07 * slow + 0.05 * middle + 0.04 * fine))
        rgb += saturate(0.5 + (ys - stage.horizon - 0.006 * ridge) * edge) * (floor - rgb)
    rgb *= 0.72 + 0.42 * (stage.light.ambient + 0.55 * stage.light.colour)[:, None, None]
    canvas = Canvas(np.ascontiguousarray(rgb, np.float32))
    for chain, colour in stage.pebbles:
        _paint_pebble(canvas, chain, colour, stage.light)
    return canvas


def paint_shadow(stage: Stage, canvas: Canvas) -> None:
    """The shadow on the ground at the stage's place, the same whatever will stand there."""
    side = np.sqrt(stage.area)
    x = stage.x - 0.25 * side * stage.light.direction[0]
    c = canvas.centres
    dark = soft_spot(c, c, x, stage.ground - 0.01, 1.05 * side, 0.14 * side)
    canvas.rgb *= 1 - (0.30 + 0.25 * float(stage.light.colour.mean())) * dark


def paint_foreground(stage: Stage, canvas: Canvas) -> None:
    """Grass, which may hide a part of an animal."""
    for feet, tips, colour in stage.tufts:
        thick, thin = np.full(len(feet), 0.005), np.full(len(feet), 0.001)
        outline = Chain([*feet, *tips], [*thick, *thin])
        window = canvas.window(_PICTURE, outline.box())
        xs, ys = canvas.grid(_PICTURE, window)
        distances, inside = capsules(feet, tips, (thick, thin), xs, ys)
        distance = distances.min(0)
        tone = 0.7 + 0.5 * inside[2].max(0)
        coverage = canvas.coverage(_PICTURE, distance)
        canvas.paint(window, coverage, colour[:, None, None] * tone)
        canvas.labels[window][distance < 0] = 0


def _paint_pebble(canvas: Canvas, chain: Chain, colour: Array, light: Light) -> None:
    window = canvas.window(_PICTURE, chain.box())
    shape = solid(chain, *canvas.grid(_PICTURE, window))
    x, y, z = light.direction
    outwards = np.sqrt(np.maximum(1 - shape.across_x**2 - shape.across_y**2, 0))
    lambert = saturate(0.45 + 0.55 * (shape.across_x * x + shape.across_y * y + outwards * z))
    lit = (colour * (light.ambient + light.colour))[:, None, None] * lambert
    canvas.paint(window, canvas.coverage(_PICTURE, shape.distance), lit)


_PICTURE = Frame(0.0, 0.0, 1.0)
