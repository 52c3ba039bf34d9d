"""Shapes and textures as continuous functions, sampled at pixel centres.

Every shape is a chain of tapered capsules, known by its signed distance (negative inside), so a
drawing is the same at any size: an edge is blended over one pixel, and a pixel belongs to the shape
that lies on top and whose distance is negative there. Textures are sums of plane waves, which
cos(a + b) = cos a cos b - sin a sin b turns into one matrix product per picture.

Coordinates run over [0, 1]^2, x to the right and y down.
"""

from __future__ import annotations

from operator import add, sub
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Window = tuple[slice, slice]


class Chain(NamedTuple):
    """Tapered capsules along `points` (n, 2) with `radii` (n,), joined over a length `blend`."""

    points: Array
    radii: Array
    blend: float = 0.02

    def box(self) -> tuple[float, float, float, float]:
        """The smallest x, largest x, smallest y and largest y of the shape."""
        x, y, r = (*self.points.T.tolist(), self.radii.tolist())
        return (
            min(map(sub, x, r)),
            max(map(add, x, r)),
            min(map(sub, y, r)),
            max(map(add, y, r)),
        )


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


class Frame(NamedTuple):
    """Where a figure stands: its origin, its unit of length, and the side it faces (1 or -1)."""

    x: float
    y: float
    unit: float
    facing: int = 1

    def to_local(self, xs: Array, ys: Array) -> tuple[Array, Array]:
        return (xs - self.x) * (self.facing / self.unit), (ys - self.y) * (1 / self.unit)


class Canvas:
    """A picture being painted from back to front, with the label of what is on top.

    `rgb` (3, N, N) holds floats in [0, 1], `labels` (N, N) small integers, 0 for the background.
    """

    def __init__(self, rgb: Array):
        self.rgb = rgb
        self.size = rgb.shape[-1]
        self.centres = pixel_centres(self.size)
        self.labels = np.zeros((self.size, self.size), np.uint8)

    def window(
        self, frame: Frame, box: tuple[float, float, float, float], margin: float = 0.0
    ) -> Window:
        """Rows and columns that hold a box, given in the frame's units, and a margin around it."""
        reach = margin * frame.unit * self.size + 1
        scale = frame.unit * self.size
        low_x, high_x, low_y, high_y = box
        if frame.facing < 0:
            low_x, high_x = -high_x, -low_x
        x, y = frame.x * self.size, frame.y * self.size
        return (
            self._span(y + low_y * scale - reach, y + high_y * scale + reach),
            self._span(x + low_x * scale - reach, x + high_x * scale + reach),
        )

    def _span(self, low: float, high: float) -> slice:
        return slice(int(min(max(low, 0), self.size)), int(min(max(high + 1, 0), self.size)))

    def grid(self, frame: Frame, window: Window) -> tuple[Array, Array]:
        """The window's pixel centres in the frame's units, x (w,) and y (h,)."""
        return frame.to_local(self.centres[window[1]], self.centres[window[0]])

    def coverage(self, frame: Frame, distance: Array) -> Array:
        """Share of each pixel within a shape, from its signed distance in the frame's units."""
        return saturate(0.5 - distance * np.float32(self.size * frame.unit))

    def paint(self, window: Window, coverage: Array, colour: Array) -> None:
        """Lay a colour over the window."""
        under = self.rgb[:, window[0], window[1]]
        under += coverage * (colour - under)

    def to_uint8(self) -> Array:
        return (saturate(self.rgb) * 255 + 0.5).astype(np.uint8)


def pixel_centres(size: int) -> Array:
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


def saturate(x: Array) -> Array:
    return np.minimum(np.maximum(x, 0), 1)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 up to `low`, 1 from `high` on, a cubic between; falling where `low` > `high`."""
    t = saturate((x - low) * (1 / (high - low)))
    return t * t * (3 - 2 * t)


def segments(
    starts: Array, ends: Array, radii: tuple[Array, Array], xs: Array, ys: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Tapered capsules, each by itself, on the grid xs (w,) by ys (h,).

    `starts` and `ends` are (s, 2), `radii` at both (s,). Gives, all (s, h, w): signed distance, the
    vector (x, y) from the axis, the radius there, and the place on the axis from 0 to 1.
    """
    first = starts.astype(np.float32)[..., None, None]
    step = (ends - starts).astype(np.float32)[..., None, None]
    thick = radii[0].astype(np.float32)[:, None, None]
    taper = (radii[1] - radii[0]).astype(np.float32)[:, None, None]
    step_x, step_y = step[:, 0], step[:, 1]
    inverse = 1 / (step_x * step_x + step_y * step_y + np.float32(1e-12))
    x, y = xs - first[:, 0], ys[:, None] - first[:, 1]  # (s, 1, w), (s, h, 1)
    place = saturate(x * (step_x * inverse) + y * (step_y * inverse))
    across_x, across_y = x - place * step_x, y - place * step_y
    radius = thick + place * taper
    distance = np.sqrt(across_x * across_x + across_y * across_y) - radius
    return distance, across_x, across_y, radius, place


def solid(chain: Chain, xs: Array, ys: Array) -> Solid:
    """A chain on the grid xs (w,) by ys (h,)."""
    points, radii = chain.points, chain.radii
    distance, across_x, across_y, radius, place = segments(
        points[:-1], points[1:], (radii[:-1], radii[1:]), xs, ys
    )
    if len(distance) == 1:
        inverse = 1 / radius[0]
        return Solid(distance[0], across_x[0] * inverse, across_y[0] * inverse, place[0])
    nearest = distance.min(0)
    weight = np.exp((nearest - distance) * np.float32(1 / chain.blend))
    total = weight.sum(0)
    weight /= total
    place += np.arange(len(place), dtype=np.float32)[:, None, None]
    place *= weight
    weight /= radius
    across_x *= weight
    across_y *= weight
    return Solid(
        nearest - np.float32(chain.blend) * np.log(total),
        across_x.sum(0),
        across_y.sum(0),
        place.sum(0) * np.float32(1 / len(place)),
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
    draw = rng.random((3, count))
    angle = np.pi * draw[0]
    ratio = (high / low) ** draw[1]
    frequency = (2 * np.pi * low) * ratio
    weights = 1 / np.sqrt(ratio)
    weights *= np.sqrt(2 / (weights @ weights))
    vectors = np.stack([np.cos(angle) / stretch, np.sin(angle)], 1) * frequency[:, None]
    return Waves(vectors, 2 * np.pi * draw[2], weights.astype(np.float32))


def texture(waves: Waves, xs: Array, ys: Array) -> Array:
    """The sum of the waves on the grid xs (w,) by ys (h,), (h, w)."""
    along_x = np.outer(waves.vectors[:, 0], xs).astype(np.float32)
    along_y = (np.outer(ys, waves.vectors[:, 1]) + waves.phases).astype(np.float32)
    left = np.concatenate([np.cos(along_y) * waves.weights, np.sin(along_y) * -waves.weights], 1)
    right = np.concatenate([np.cos(along_x), np.sin(along_x)], 0)
    # In strips small enough that BLAS does not start threads, which would get in the way of
    # the worker processes.
    strip = max(1, 200_000 // max(1, right.size))
    return np.concatenate([left[y : y + strip] @ right for y in range(0, max(1, len(ys)), strip)])


def soft_spot(xs: Array, ys: Array, x: float, y: float, rx: float, ry: float) -> Array:
    """A round bump of height one, (h, w)."""
    across = np.exp(-(((xs - x) / rx) ** 2))
    down = np.exp(-(((ys - y) / ry) ** 2))
    return np.outer(down, across).astype(np.float32)
