"""The species: which body plan, which coat and which palette each of them combines.

Every plan, pattern and palette belongs to at least two species, so none of the three tells a
species by itself; and for each of them there is a pair of species that differ in nothing else
(tiger and cheetah in pattern, hare and snow hare in palette, pinto and pig in plan), so none
can be left out.

Lengths are in units of about one trunk length. The ground is y = 0, up is negative, and animals
face towards positive x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Point = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Leg:
    """Joint on the trunk, radii at hip, knee and ankle, and the foot's length and radius."""

    joint: Point
    radii: tuple[float, float, float]
    foot: tuple[float, float]
    knee: int  # which way the knee gives: 1 forwards, -1 backwards
    stride: float


@dataclass(frozen=True)
class Plan:
    """The shape of an animal at rest."""

    trunk: tuple[tuple[float, float, float], ...]  # x, y, radius from rump to chest
    neck: tuple[tuple[float, float, float], ...]  # from the chest to the nape
    neck_swing: tuple[float, float]  # how far the neck may turn down and up, radians
    skull: float  # radius
    muzzle: tuple[float, float, float]  # length, drop below the skull's axis, radius at the nose
    pitch: float  # of the head, radians, positive looks down
    eye: tuple[float, float, float]  # x, y from the skull's centre, radius
    ear: tuple[float, ...]  # radii from base to tip
    ear_length: float
    ear_angle: float  # from straight up, radians, positive leans back
    front: Leg
    hind: Leg
    tail: tuple[float, ...]  # radii from base to tip, empty where there is no tail
    tail_length: float = 0.0
    tail_angle: float = 0.0  # at the base, from straight back, radians, positive hangs
    tail_curl: float = 0.0  # how far it turns up towards the tip, radians
    limber: float = 1.0  # how widely trunk, head, ears and tail turn, as a multiple


class Palette(NamedTuple):
    """Colours (r, g, b) in [0, 1]: the ground of the coat, its marks, the underside, the eye."""

    base: Colour
    mark: Colour
    belly: Colour
    eye: Colour


@dataclass(frozen=True)
class Species:
    """What the animals of one name have in common."""

    name: str
    plan: str
    pattern: str
    palette: str
    belt: tuple[float, float] = (0.0, 0.0)  # from x to x along the trunk, for the belted ones
    points: bool = False  # whether legs, ears and the rims of the eyes wear the mark colour


PLANS = {
    "cat": Plan(
        trunk=((-0.36, -0.53, 0.165), (-0.05, -0.51, 0.16), (0.27, -0.53, 0.185)),
        neck=((0.30, -0.58, 0.15), (0.46, -0.70, 0.12)),
        neck_swing=(-0.25, 0.55),
        skull=0.175,
        muzzle=(0.055, 0.05, 0.092),
        pitch=0.10,
        eye=(0.07, -0.03, 0.044),
        ear=(0.068, 0.045, 0.008),
        ear_length=0.12,
        ear_angle=0.10,
        front=Leg((0.27, -0.47), (0.105, 0.066, 0.052), (0.065, 0.052), 1, 0.17),
        hind=Leg((-0.36, -0.48), (0.135, 0.07, 0.05), (0.065, 0.052), -1, 0.17),
        tail=(0.05, 0.044, 0.04, 0.04, 0.042),
        tail_length=0.64,
        tail_angle=0.55,
        tail_curl=2.3,
    ),
    "grazer": Plan(
        trunk=((-0.34, -0.70, 0.17), (-0.03, -0.67, 0.175), (0.28, -0.69, 0.175)),
        neck=((0.33, -0.75, 0.14), (0.46, -0.95, 0.095), (0.54, -1.08, 0.085)),
        neck_swing=(-0.10, 0.75),
        skull=0.105,
        muzzle=(0.23, 0.03, 0.062),
        pitch=0.55,
        eye=(0.035, -0.03, 0.033),
        ear=(0.03, 0.045, 0.012),
        ear_length=0.16,
        ear_angle=0.55,
        front=Leg((0.27, -0.63), (0.095, 0.046, 0.036), (0.03, 0.042), 1, 0.20),
        hind=Leg((-0.36, -0.66), (0.13, 0.05, 0.036), (0.03, 0.042), -1, 0.20),
        tail=(0.035, 0.025, 0.03, 0.045, 0.02),
        tail_length=0.38,
        tail_angle=1.15,
        tail_curl=-0.3,
    ),
    "bear": Plan(
        trunk=((-0.29, -0.57, 0.23), (0.0, -0.57, 0.25), (0.25, -0.59, 0.23)),
        neck=((0.31, -0.65, 0.19), (0.44, -0.71, 0.165)),
        neck_swing=(-0.25, 0.55),
        skull=0.185,
        muzzle=(0.135, 0.055, 0.092),
        pitch=0.15,
        eye=(0.085, -0.035, 0.036),
        ear=(0.055, 0.062),
        ear_length=0.055,
        ear_angle=0.30,
        front=Leg((0.23, -0.49), (0.14, 0.105, 0.088), (0.075, 0.075), 1, 0.14),
        hind=Leg((-0.28, -0.47), (0.17, 0.115, 0.09), (0.085, 0.075), -1, 0.14),
        tail=(),
    ),
    "hare": Plan(
        trunk=((-0.20, -0.33, 0.245), (0.03, -0.36, 0.215), (0.20, -0.39, 0.17)),
        neck=((0.22, -0.44, 0.15), (0.32, -0.56, 0.115)),
        neck_swing=(-0.30, 0.40),
        skull=0.155,
        muzzle=(0.115, 0.045, 0.08),
        pitch=0.20,
        eye=(0.06, -0.025, 0.044),
        ear=(0.042, 0.062, 0.058, 0.024),
        ear_length=0.40,
        ear_angle=0.30,
        front=Leg((0.20, -0.30), (0.085, 0.054, 0.046), (0.055, 0.044), 1, 0.10),
        hind=Leg((-0.22, -0.24), (0.185, 0.075, 0.055), (0.20, 0.05), -1, 0.10),
        tail=(0.07, 0.085, 0.06),
        tail_length=0.12,
        tail_angle=-0.5,
        tail_curl=0.6,
    ),
    "boar": Plan(
        trunk=((-0.33, -0.46, 0.205), (0.0, -0.45, 0.23), (0.27, -0.46, 0.215)),
        neck=((0.33, -0.49, 0.19), (0.44, -0.52, 0.165)),
        neck_swing=(-0.20, 0.45),
        skull=0.165,
        muzzle=(0.25, 0.05, 0.08),
        pitch=0.30,
        eye=(0.075, -0.04, 0.035),
        ear=(0.055, 0.062, 0.016),
        ear_length=0.15,
        ear_angle=0.60,
        front=Leg((0.27, -0.36), (0.105, 0.064, 0.05), (0.025, 0.052), 1, 0.12),
        hind=Leg((-0.32, -0.36), (0.15, 0.068, 0.05), (0.025, 0.052), -1, 0.12),
        tail=(0.024, 0.02, 0.02, 0.024),
        tail_length=0.26,
        tail_angle=0.1,
        tail_curl=2.6,
    ),
}

PALETTES = {
    "amber": Palette((0.90, 0.53, 0.16), (0.17, 0.10, 0.07), (0.98, 0.90, 0.76), (0.62, 0.78, 0.3)),
    "ash": Palette((0.92, 0.91, 0.89), (0.13, 0.13, 0.15), (0.97, 0.97, 0.96), (0.42, 0.28, 0.16)),
    "umber": Palette((0.50, 0.33, 0.20), (0.96, 0.89, 0.76), (0.80, 0.63, 0.45), (0.36, 0.22, 0.1)),
    "slate": Palette((0.22, 0.25, 0.33), (0.86, 0.88, 0.91), (0.31, 0.34, 0.42), (0.93, 0.76, 0.2)),
}

SPECIES = (
    Species("tiger", "cat", "stripes", "amber"),
    Species("cheetah", "cat", "spots", "amber"),
    Species("panther", "cat", "plain", "slate"),
    Species("zebra", "grazer", "stripes", "ash"),
    Species("deer", "grazer", "spots", "umber"),
    Species("pinto", "grazer", "patches", "umber"),
    Species("bear", "bear", "plain", "umber"),
    Species("panda", "bear", "belt", "ash", belt=(0.12, 0.44), points=True),
    Species("hare", "hare", "gradient", "umber"),
    Species("snow hare", "hare", "gradient", "ash"),
    Species("pig", "boar", "patches", "umber"),
    Species("tapir", "boar", "belt", "slate", belt=(-0.42, 0.10)),
)
