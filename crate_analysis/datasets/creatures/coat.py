"""Coats: where an animal wears its mark colour, and the colour that makes at each point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .chance import between
from .drawing import Array, Waves, draw_waves, smoothstep
from .families import PALETTES, PLANS
from .species import Palette, Species


@dataclass(frozen=True)
class Coat:
    """One animal's coat.

    `wander` are slow waves that bend the pattern, `fur` fast ones that roughen the colour; both
    are evaluated once for the whole animal and handed to `marks` and `colour` part by part.
    """

    species: Species
    palette: Palette
    wander: Waves
    fur: Waves
    pitch: float  # marks a unit of length
    shift: float  # of the pattern along the body
    cells: Array  # (16, 16, 3) offsets and size of the spot in each cell of a grid

    def marks(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        """Share of the mark colour, in [0, 1], on the grid xs (w,) by ys (h,)."""
        if self.species.points and part in ("legs", "ears"):
            return np.ones_like(along)
        return getattr(self, f"_{self.species.pattern}")(part, xs, ys, along, wander)

    def _plain(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        return np.zeros_like(along)

    def _stripes(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.45, 0.6, along)
        if part in ("legs", "tail"):  # rings
            wave = np.sin(along * (19 if part == "legs" else 30) + 0.5 * wander)
            return smoothstep(-0.05, 0.45, wave) * smoothstep(0.05, 0.3, along)
        bend = 0.9 * wander + 2.2 * ys[:, None] + self.shift
        wave = np.sin((2 * np.pi * self.pitch) * xs + bend)
        return smoothstep(0.0, 0.4, wave)

    def _spots(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.55, 0.7, along)
        u = xs * (1.9 * self.pitch) + 0.22 * wander + self.shift
        v = ys[:, None] * (1.9 * self.pitch) - 0.22 * wander + self.shift
        row = np.floor(v)
        u = u + 0.5 * row  # every other row is offset by half a cell
        column = np.floor(u)
        cell = self.cells[row.astype(np.int32) & 15, column.astype(np.int32) & 15]
        du = u - column - cell[..., 0]
        dv = v - row - cell[..., 1]
        return smoothstep(0.06, -0.06, np.sqrt(du * du + dv * dv) - cell[..., 2])

    def _patches(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        return smoothstep(0.08, 0.24, wander)

    def _belt(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part != "body":
            return np.zeros_like(along)
        start, stop = self.species.belt
        x = xs + 0.03 * wander
        return smoothstep(start - 0.03, start + 0.03, x) * smoothstep(stop + 0.03, stop - 0.03, x)

    def _gradient(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.5, 0.95, along)
        if part == "head":
            return np.zeros_like(along)
        return smoothstep(0.22, -0.42, xs + 0.05 * wander + np.zeros_like(along))

    def _rosettes(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.45, 0.6, along)
        near, _ = self._cell_distances(xs, ys, 1.25 * self.pitch, wander)
        ring = smoothstep(0.22, 0.10, np.abs(near - 0.28))
        return ring * smoothstep(-1.6, -1.0, wander)  # some stay open

    def _net(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.55, 0.75, along)
        near, second = self._cell_distances(xs, ys, 1.05 * self.pitch, wander)
        return smoothstep(0.26, 0.14, second - near)

    def _brindle(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.35, 0.6, along)
        u, v = xs + 0.6 * ys[:, None], ys[:, None] - 0.6 * xs
        streak = np.sin((2 * np.pi * 1.5 * self.pitch) * u + 2.4 * wander + self.shift)
        broken = np.sin((2 * np.pi * 0.9 * self.pitch) * v - 3.0 * wander)
        return smoothstep(0.0, 0.4, streak) * smoothstep(-0.4, 0.1, broken)

    def _chevrons(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part == "ears":
            return smoothstep(0.45, 0.6, along)
        if part in ("legs", "tail"):  # rings
            wave = np.sin(along * (15 if part == "legs" else 33) + 0.3 * wander)
            return smoothstep(0.0, 0.4, wave)
        _, middle, _ = self._trunk()
        fold = xs + np.abs(ys[:, None] - middle)
        wave = np.sin((2 * np.pi * 0.7 * self.pitch) * fold + 0.3 * wander + self.shift)
        return smoothstep(0.0, 0.4, wave)

    def _saddle(self, part: str, xs: Array, ys: Array, along: Array, wander: Array) -> Array:
        if part in ("tail", "ears"):
            return smoothstep(0.55, 0.75, along)
        if part != "body":
            return np.zeros_like(along)
        x, y, radius = self._trunk()
        across, down = (xs - x) / 0.30, (ys[:, None] - (y - 1.2 * radius)) / (1.5 * radius)
        return smoothstep(1.15, 0.85, np.hypot(across, down) + 0.10 * wander)

    def _cell_distances(
        self, xs: Array, ys: Array, density: float, wander: Array
    ) -> tuple[Array, Array]:
        """Distances to the two nearest centres of a bent grid of cells, in units of a cell."""
        u = xs * density + 0.18 * wander + self.shift
        v = ys[:, None] * density - 0.18 * wander + self.shift
        near = np.full(u.shape, np.inf, np.float32)
        second = near.copy()
        for down in (-1, 0, 1):
            row = np.floor(v) + down
            shifted = u + 0.5 * row  # every other row is offset by half a cell
            for across in (-1, 0, 1):
                column = np.floor(shifted) + across
                cell = self.cells[row.astype(np.int32) & 15, column.astype(np.int32) & 15]
                distance = np.hypot(shifted - column - cell[..., 0], v - row - cell[..., 1])
                second = np.minimum(second, np.maximum(near, distance))
                near = np.minimum(near, distance)
        return near, second

    def _trunk(self) -> tuple[float, float, float]:
        """Middle x, y and mean radius of the trunk at rest."""
        x, y, radius = np.mean(PLANS[self.species.plan].trunk, axis=0).tolist()
        return x, y, radius

    def underside(self, part: str, across_y: Array, along: Array) -> Array | float:
        """Share of the underside's colour: the belly, and the muzzle of the furry ones."""
        if part == "body":
            return smoothstep(0.35, 0.95, across_y)
        if part == "head":
            return smoothstep(0.35, 0.95, across_y + 0.7 * along)
        return 0.0

    def colour(self, marks: Array, underside: Array) -> Array:
        """Albedo (3, h, w) in [0, 1]."""
        palette = self.palette
        base, mark, belly = np.array(palette[:3], np.float32)[:, :, None, None]
        ground = base + underside * (belly - base)
        return ground + (marks * (1 - 0.55 * underside)) * (mark - ground)


def draw_coat(species: Species, rng: np.random.Generator) -> Coat:
    """The coat of one animal, at random within its species."""
    cells = rng.random((16, 16, 3), np.float32)
    cells *= np.array([0.28, 0.28, 0.11], np.float32)
    cells += np.array([0.36, 0.36, 0.22], np.float32)
    tint = 1 + rng.normal(0, 0.025, 3) + between(rng, -0.10, 0.06)
    palette = PALETTES[species.palette]
    base, mark, belly = map(tuple, np.minimum(np.array(palette[:3]) * tint, 1).tolist())
    return Coat(
        species=species,
        palette=Palette(base, mark, belly, palette.eye),
        wander=draw_waves(rng, 0.8, 2.2, 10),
        fur=draw_waves(rng, 8.0, 30.0, 20),
        pitch=between(rng, 4.6, 5.8),
        shift=between(rng, 0.0, 2 * np.pi),
        cells=cells,
    )
