"""From a body plan and a draw of the joints to the shapes of one animal.

Points are complex numbers x + iy, so that a turn is a product.
"""

from __future__ import annotations

from cmath import rect
from math import cos, pi, sin, sqrt
from typing import NamedTuple

import numpy as np

from .chance import between
from .drawing import Chain
from .species import Leg, Plan


class Body(NamedTuple):
    """The shapes of one animal, in the units of its plan with the feet on y = 0."""

    trunk: Chain
    head: Chain
    legs_far: tuple[Chain, Chain]
    legs_near: tuple[Chain, Chain]
    ear_far: Chain
    ear_near: Chain
    tail: Chain | None
    turn: complex  # of the head, of modulus one

    def chains(self) -> tuple[Chain, ...]:
        """All the shapes, in no special order."""
        tail = () if self.tail is None else (self.tail,)
        ears = (self.ear_far, self.ear_near)
        return (self.trunk, self.head, *self.legs_far, *self.legs_near, *ears, *tail)

    def turned(self, angle: float, centre: complex) -> Body:
        """The whole animal turned about a point, by radians; positive lowers the head."""
        way = rect(1, angle)

        def turn(chain: Chain) -> Chain:
            return chain._replace(points=[centre + (p - centre) * way for p in chain.points])

        far, near = ((turn(one), turn(other)) for one, other in (self.legs_far, self.legs_near))
        return Body(
            trunk=turn(self.trunk),
            head=turn(self.head),
            legs_far=far,
            legs_near=near,
            ear_far=turn(self.ear_far),
            ear_near=turn(self.ear_near),
            tail=None if self.tail is None else turn(self.tail),
            turn=self.turn * way,
        )


def draw_body(plan: Plan, rng: np.random.Generator | None) -> Body:
    """An animal in a drawn pose, or at rest where `rng` is None."""

    def spread(low: float, high: float) -> float:
        return (low + high) / 2 if rng is None else between(rng, low, high)

    def turn_by(most: float) -> float:
        return plan.limber * spread(-most, most)

    trunk, trunk_radii = _points(plan.trunk)
    neck, neck_radii = _points(plan.neck)
    girth = spread(0.93, 1.07)
    tilt = turn_by(0.10)
    centre = sum(trunk) / len(trunk)
    moved = complex(centre.real, centre.imag * (1 - spread(0.0, 0.06)))

    def carry(point: complex) -> complex:
        """Where the trunk's tilt and crouch take a point that is fixed to it."""
        return (point - centre) * rect(1, tilt) + moved

    swing = rect(1, tilt + spread(*plan.neck_swing))
    nape = [carry(neck[0]) + (point - neck[0]) * swing for point in neck]

    size = spread(0.95, 1.08)
    pitch = plan.pitch + tilt + turn_by(0.30)
    turn = rect(1, pitch)
    skull = nape[-1] + turn * plan.skull * (0.45 - 0.15j)
    length, drop, nose = plan.muzzle
    muzzle = skull + turn * size * complex(plan.skull * 0.55 + length, drop)

    lean = plan.ear_angle + turn_by(0.22)
    ears = []
    for side in (0.22, -0.26):
        way = -1j * rect(1, side * 0.9 - lean) * plan.ear_length / (len(plan.ear) - 1)
        foot = plan.skull * complex(side - 0.25, -0.72)
        points = [skull + turn * size * (foot + k * way) for k in range(len(plan.ear))]
        ears.append(Chain(points, [size * radius for radius in plan.ear]))

    phase = spread(0.0, 2 * pi)
    pace = spread(0.15, 1.0)
    legs = [
        _leg(leg, carry(complex(*leg.joint) + shift), phase + beat + spread(-0.5, 0.5), pace, shift)
        for leg, beat, shift in (
            (plan.hind, 3.1, 0.07 - 0.03j),
            (plan.front, 4.7, 0.07 - 0.03j),
            (plan.hind, 0.0, 0j),
            (plan.front, 1.6, 0j),
        )
    ]
    tail = None
    if plan.tail:
        root = carry(trunk[0] + trunk_radii[0] * (-0.80 - 0.35j))
        tail = _tail(plan, root, tilt + turn_by(0.35), spread(0.5, 1.5))
    return Body(
        trunk=Chain(
            [*map(carry, trunk), *nape], [girth * r for r in trunk_radii] + neck_radii, 0.11
        ),
        head=Chain([skull, muzzle], [size * plan.skull, size * nose]),
        legs_far=(legs[0], legs[1]),
        legs_near=(legs[2], legs[3]),
        ear_far=ears[0],
        ear_near=ears[1],
        tail=tail,
        turn=turn,
    )


def _points(joints: tuple[tuple[float, float, float], ...]) -> tuple[list[complex], list[float]]:
    return [complex(x, y) for x, y, _ in joints], [radius for _, _, radius in joints]


def _leg(leg: Leg, joint: complex, angle: float, pace: float, shift: complex) -> Chain:
    """Two bones of equal length from the joint to a foot on its way, and the foot itself."""
    length, thickness = leg.foot
    height = -leg.joint[1] - thickness
    lift = 0.16 * pace * max(0.0, cos(angle))
    rest = complex(leg.joint[0] - 0.01 * leg.knee, -thickness) + shift.imag * 1j
    reach = rest + complex(leg.stride * pace * sin(angle), -lift * height) - joint
    bone = height * 0.51
    distance = min(abs(reach), 1.99 * bone)
    way = reach / abs(reach)
    ankle = joint + way * distance
    knee = joint + way * complex(distance / 2, -leg.knee * sqrt(bone**2 - distance**2 / 4))
    return Chain([joint, knee, ankle, ankle + rect(length, lift / 2)], [*leg.radii, thickness])


def _tail(plan: Plan, root: complex, lift: float, curl: float) -> Chain:
    """A tail that leaves the rump downwards and turns up evenly along its length."""
    bones = len(plan.tail) - 1
    points = [root]
    for k in range(bones):
        bend = plan.tail_curl * curl * k / max(bones - 1, 1)
        step = rect(plan.tail_length / bones, plan.tail_angle + lift - bend)
        points.append(points[-1] - step.conjugate())
    return Chain(points, list(plan.tail))
