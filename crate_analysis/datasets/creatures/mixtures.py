"""Animals of mixed parts: one trunk, and two variants each of ears, legs, tail and muzzle.

All stand on the cat's plan: trunk, neck, skull and the places where legs, ears and tail begin are
one and the same. What is mixed is taken from the plans of `species`. Any coat goes with any parts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import NamedTuple

from . import species
from .species import Leg, Plan

VARIANTS = {
    "ears": ("cat", "hare"),
    "legs": ("grazer", "bear"),
    "tail": ("cat", "hare"),
    "muzzle": ("cat", "boar"),
}
"""For each part that varies, whose it may be; the first is 0 and the second 1 in `PART_BITS`."""
PATTERNS = ("plain", "stripes", "spots", "patches")
PALETTES = ("amber", "ash", "umber", "slate")

PART_BITS = tuple(product((0, 1), repeat=len(VARIANTS)))
"""For each class of parts its variants, in the order of `VARIANTS`."""
PART_CLASSES = tuple(
    " ".join(
        f"{owners[bit]}-{part}" for (part, owners), bit in zip(VARIANTS.items(), bits, strict=True)
    )
    for bits in PART_BITS
)
COATS = tuple(product(PATTERNS, PALETTES))
"""For each class of coats its pattern and palette."""
COAT_CLASSES = tuple(f"{palette} {pattern}" for pattern, palette in COATS)


class Poses(NamedTuple):
    """How widely an animal moves.

    Radians that all of it is turned by, either way; how limber it is, and the swing of its neck, as
    in a `Plan`.
    """

    tilt: float
    limber: float
    neck_swing: tuple[float, float]


POSES = {"": Poses(0.15, 1.2, (-0.30, 0.60)), ", wide": Poses(0.35, 2.0, (-0.45, 0.85))}
"""By the ending of the plans' names."""


def _mixed(bits: tuple[int, ...], poses: Poses) -> Plan:
    """The cat's plan with the parts that the bits ask for."""
    base = species.PLANS["cat"]
    ears, legs, tail, muzzle = (
        species.PLANS[owners[bit]] for owners, bit in zip(VARIANTS.values(), bits, strict=True)
    )

    def leg(place: Leg, shape: Leg) -> Leg:
        return replace(shape, joint=place.joint, stride=place.stride)

    return replace(
        base,
        neck_swing=poses.neck_swing,
        limber=poses.limber,
        ear=ears.ear,
        ear_length=ears.ear_length,
        ear_angle=ears.ear_angle,
        front=leg(base.front, legs.front),
        hind=leg(base.hind, legs.hind),
        tail=tail.tail,
        tail_length=tail.tail_length,
        tail_angle=tail.tail_angle,
        tail_curl=tail.tail_curl,
        muzzle=muzzle.muzzle,
    )


PLANS = {
    name + ending: _mixed(bits, poses)
    for ending, poses in POSES.items()
    for name, bits in zip(PART_CLASSES, PART_BITS, strict=True)
}
