"""Shapes and textures as continuous functions, sampled at pixel centres.

Every shape is a chain of tapered capsules, known by its signed distance (negative inside), so a
drawing is the same at any size: an edge is blended over one pixel, and a pixel belongs to the shape
that lies on top and whose distance is negative there. Textures are sums of plane waves, which
cos(a + b) = cos a cos b - sin a sin b turns into one matrix product per image.

Coordinates run over [0, 1]^2, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Window = tuple[slice, slice]
Box = tuple[float, float, float, float]  # smallest x, largest x, smallest y, largest y

Bone = tuple[complex, complex, float, float]  # its two ends and the radii there


class Chain(NamedTuple):
    """Tapered capsules along `points` x + iy with `radii`, smoothly joined over `blend`."""

    points: list[complex]
    radii: list[float]
    blend: float = 0.06

    def box(self) -> Box:
        """The smallest box around the shape."""
        ends = list(zip(self.points, self.radii, strict=True))
        return (
            min(p.real - r for p, r in ends),
            max(p.real + r for p, r in ends),
            min(p.imag - r for p, r in ends),
            max(p.imag + r for p, r in ends),
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
        """Image coordinates in the units of the frame."""
        return (xs - self.x) * (self.facing / self.unit), (ys - self.y) * (1 / self.unit)


class Canvas:
    """An image being painted from back to front, with the label of what is on top.

    `rgb` (3, N, N) holds floats in [0, 1], `labels` (N, N) small integers, 0 for the background.
    """

    def __init__(self, rgb: Array):
        self.rgb = rgb
        self.size = rgb.shape[-1]
        self.centres = pixel_centres(self.size)
        self.labels = np.zeros((self.size, self.size), np.uint8)

    def window(self, frame: Frame, box: Box, margin: float = 0.0) -> Window:
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
        """The image (3, N, N) as bytes."""
        return (saturate(self.rgb) * 255 + 0.5).astype(np.uint8)


def pixel_centres(size: int) -> Array:
    """The coordinates (size,) of the middles of the pixels along a side."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


def saturate(x: Array) -> Array:
    """The values of `x`, cut off at 0 and 1."""
    return np.clip(x, 0, 1)


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 up to `low`, 1 from `high` on, a cubic between; falling where `low` > `high`."""
    t = saturate((x - low) * (1 / (high - low)))
    return t * t * (3 - 2 * t)


def capsules(bones: Iterable[Bone], xs: Array, ys: Array) -> tuple[Array, Array]:
    """Tapered capsules, each by itself, on the grid xs (w,) by ys (h,).

    Gives the signed distance (s, h, w) and, (3, s, h, w), the vector from the axis in units of
    the radius there, x and y, and the place along the axis from 0 to 1.
    """
    table = []
    for start, end, thick, thin in bones:
        step = end - start
        inverse = 1 / (step.real**2 + step.imag**2 + 1e-12)
        table.append((step.real, step.imag, start.real, start.imag, inverse, thick, thin - thick))
    columns = np.array(table, np.float32).T[:, :, None, None]
    step_x, step_y, first_x, first_y, per_length2, radius_0, taper = columns
    x, y = xs - first_x, ys[:, None] - first_y  # (s, 1, w), (s, h, 1)
    place = saturate(x * (step_x * per_length2) + y * (step_y * per_length2))
    radius = place * taper
    radius += radius_0
    inside = np.empty((3, *place.shape), np.float32)
    across_x = np.subtract(x, place * step_x, out=inside[0])
    across_y = np.subtract(y, place * step_y, out=inside[1])
    distance = np.sqrt(across_x * across_x + across_y * across_y)
    distance -= radius
    inside[:2] /= radius
    inside[2] = place
    return distance, inside


def solid(chain: Chain, xs: Array, ys: Array) -> Solid:
    """A chain on the grid xs (w,) by ys (h,)."""
    points, radii = chain.points, chain.radii
    bones = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    distance, inside = capsules(bones, xs, ys)
    count = len(distance)
    if count == 1:
        return Solid(distance[0], *inside[:, 0])
    inside[2] += np.arange(count, dtype=np.float32)[:, None, None]
    inside[2] *= np.float32(1 / count)
    nearest = np.minimum.reduce(distance)
    distance -= nearest
    weight = np.maximum(1 - distance * np.float32(1 / chain.blend), 0)
    weight *= weight * weight
    total = np.add.reduce(weight)
    nearest -= (total - 1) * np.float32(chain.blend / 6)  # the cubic smooth minimum
    weight /= total
    inside *= weight
    return Solid(nearest, *np.add.reduce(inside, 1))


class Waves(NamedTuple):
    """Random plane waves: `vectors` (2, k) in radians a unit, `phases` and `weights` (k,)."""

    vectors: Array
    phases: Array
    weights: Array


def draw_waves(
    rng: np.random.Generator, low: float, high: float, count: int, stretch: float = 1.0
) -> Waves:
    """Waves of `low` to `high` periods a unit, in all directions, with unit variance in sum.

    `stretch` > 1 draws the pattern out along x.
    """
    turn, octave, phase = rng.random((3, count))
    ratio = (high / low) ** octave
    weights = ratio**-0.5
    weights *= (2 / (weights @ weights)) ** 0.5
    vectors = (2 * np.pi * low) * ratio * np.exp(1j * np.pi * turn)
    return Waves(np.array([vectors.real / stretch, vectors.imag]), 2 * np.pi * phase, weights)


def texture(waves: Waves, xs: Array, ys: Array) -> Array:
    """The sum of the waves on the grid xs (w,) by ys (h,), (h, w)."""
    across, down = waves.vectors[:, :, None]
    along_x = (across * xs).astype(np.float32)
    along_y = (down * ys + waves.phases[:, None]).astype(np.float32)
    weights = waves.weights.astype(np.float32)[:, None]
    left = np.concatenate([np.cos(along_y) * weights, np.sin(along_y) * -weights]).T
    right = np.concatenate([np.cos(along_x), np.sin(along_x)])
    # In strips small enough that BLAS does not start threads, which would get in the way of
    # the worker processes.
    strip = max(1, 200_000 // max(1, right.size))
    if strip >= len(ys):
        return left @ right
    return np.concatenate([left[y : y + strip] @ right for y in range(0, len(ys), strip)])
