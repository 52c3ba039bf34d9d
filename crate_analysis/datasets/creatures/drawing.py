"""Shapes and textures as continuous functions, sampled at pixel centres.

Every shape is a chain of tapered capsules, known by its signed distance (negative inside), so a
drawing is the same at any size: an edge is blended over one pixel, and a pixel belongs to the shape
that lies on top and whose distance is negative there. Textures are sums of plane waves, which
cos(a + b) = cos a cos b - sin a sin b turns into one matrix product per picture.

Coordinates run over [0, 1]^2, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Chain:
    """Tapered capsules along `points` (n, 2) with `radii` (n,), joined over a length `blend`."""

    points: Array
    radii: Array
    blend: float = 0.02


class Solid(NamedTuple):
    """A chain seen at some pixels, all (h, w).

    `distance` is signed and negative inside; (`across_x`, `across_y`) is the in-plane part of the
    unit normal of the inflated shape, zero on the axis and one at the rim; `along` runs from 0 at
    the first point to 1 at the last.
    """

    distance: Array
    across_x: Array
    across_y: Array
    along: Array


@dataclass(frozen=True)
class Frame:
    """Where a figure stands: its origin, its unit of length, and the side it faces (1 or -1)."""

    x: float
    y: float
    unit: float
    facing: int = 1

    def to_local(self, xs: Array, ys: Array) -> tuple[Array, Array]:
        return (xs - self.x) * (self.facing / self.unit), (ys - self.y) / self.unit

    def window(self, points: Array, margin: Array, size: int) -> Window:
        """Rows and columns of a `size` x `size` picture that hold `points` (n, 2) with a margin."""
        xs = self.x + points[:, 0] * (self.facing * self.unit)
        ys = self.y + points[:, 1] * self.unit
        reach = margin * self.unit
        low_x, high_x = (xs - reach).min() * size, (xs + reach).max() * size
        low_y, high_y = (ys - reach).min() * size, (ys + reach).max() * size
        return (
            slice(_clamp(low_y, size), _clamp(high_y + 1, size)),
            slice(_clamp(low_x, size), _clamp(high_x + 1, size)),
        )


def _clamp(value: float, size: int) -> int:
    return int(min(max(value, 0), size))


class Canvas:
    """A picture being painted from back to front, with the label of what is on top.

    `rgb` (3, N, N) holds floats in [0, 1], `labels` (N, N) small integers, 0 for the background.
    """

    def __init__(self, rgb: Array):
        self.rgb = rgb
        self.size = rgb.shape[-1]
        self.centres = ((np.arange(self.size) + 0.5) / self.size).astype(np.float32)
        self.labels = np.zeros((self.size, self.size), np.uint8)

    def window(self, frame: Frame, chain: Chain, margin: float = 0.0) -> Window:
        pixel = 1 / (self.size * frame.unit)
        return frame.window(chain.points, chain.radii + (margin + pixel), self.size)

    def solid(self, frame: Frame, chain: Chain, window: Window) -> Solid:
        xs, ys = frame.to_local(self.centres[window[1]], self.centres[window[0]])
        return solid(chain, xs, ys)

    def coverage(self, frame: Frame, distance: Array) -> Array:
        """Share of each pixel within a shape, from its signed distance in the frame's units."""
        return np.clip(0.5 - distance * (self.size * frame.unit), 0, 1)

    def paint(self, window: Window, coverage: Array, colour: Array, label: int | None) -> None:
        """Lay a colour over the window; `label` None leaves the labels as they are."""
        under = self.rgb[:, window[0], window[1]]
        under += coverage * (colour - under)
        if label is not None:
            self.labels[window][coverage > 0.5] = label

    def shade(self, window: Window, factor: Array) -> None:
        self.rgb[:, window[0], window[1]] *= factor

    def to_uint8(self) -> Array:
        return (np.clip(self.rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def solid(chain: Chain, xs: Array, ys: Array) -> Solid:
    """A chain evaluated on the grid xs (w,) by ys (h,)."""
    points = chain.points.astype(np.float32)
    radii = chain.radii.astype(np.float32)
    start, step = points[:-1, :, None, None], np.diff(points, axis=0)[:, :, None, None]
    length2 = (step**2).sum(1) + 1e-12
    dx, dy = xs - start[:, 0], ys[:, None] - start[:, 1]  # (s, 1, w), (s, h, 1)
    share = np.clip((dx * step[:, 0] + dy * step[:, 1]) / length2, 0, 1)  # (s, h, w)
    radius = radii[:-1, None, None] + share * np.diff(radii)[:, None, None]
    across_x, across_y = dx - share * step[:, 0], dy - share * step[:, 1]
    distance = np.sqrt(across_x * across_x + across_y * across_y) - radius
    if len(distance) == 1:
        inverse = 1 / radius[0]
        return Solid(distance[0], across_x[0] * inverse, across_y[0] * inverse, share[0])
    nearest = distance.min(0)
    weight = np.exp((nearest - distance) * np.float32(1 / chain.blend))
    total = weight.sum(0)
    weight /= total
    rim = weight / radius
    segment = np.arange(len(weight), dtype=np.float32)[:, None, None]
    return Solid(
        nearest - np.float32(chain.blend) * np.log(total),
        (across_x * rim).sum(0),
        (across_y * rim).sum(0),
        ((share + segment) * weight).sum(0) / len(weight),
    )


class Waves(NamedTuple):
    """Random plane waves: `vectors` (k, 2) in radians a unit, `phases` and `weights` (k,)."""

    vectors: Array
    phases: Array
    weights: Array


def draw_waves(
    rng: np.random.Generator, low: float, high: float, count: int, stretch: float = 1.0
) -> Waves:
    """Waves of `low` to `high` periods a unit, in all directions, with unit variance in sum.

    `stretch` > 1 draws the pattern out along x.
    """
    angle = rng.uniform(0, np.pi, count)
    frequency = 2 * np.pi * np.exp(rng.uniform(np.log(low), np.log(high), count))
    vectors = np.stack([np.cos(angle) / stretch, np.sin(angle)], 1) * frequency[:, None]
    weights = (2 * np.pi * low / frequency) ** 0.5
    weights *= np.sqrt(2 / (weights**2).sum())
    return Waves(vectors, rng.uniform(0, 2 * np.pi, count), weights)


def texture(waves: Waves, xs: Array, ys: Array) -> Array:
    """The sum of the waves on the grid xs (w,) by ys (h,), (h, w)."""
    along_x = np.outer(waves.vectors[:, 0], xs).astype(np.float32)
    along_y = (np.outer(ys, waves.vectors[:, 1]) + waves.phases).astype(np.float32)
    weights = waves.weights.astype(np.float32)
    left = np.concatenate([np.cos(along_y) * weights, np.sin(along_y) * -weights], 1)
    right = np.concatenate([np.cos(along_x), np.sin(along_x)], 0)
    return left @ right


def smoothstep(low: float, high: float, x: Array) -> Array:
    t = np.clip((x - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def ellipse_shadow(xs: Array, ys: Array, x: float, y: float, rx: float, ry: float) -> Array:
    """A soft round bump of height one, (h, w)."""
    gx = np.exp(-(((xs - x) / rx) ** 2))
    gy = np.exp(-(((ys - y) / ry) ** 2))
    return np.outer(gy, gx).astype(np.float32)
