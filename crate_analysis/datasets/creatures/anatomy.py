"""From a body plan and a draw of the joints to the shapes of one animal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .drawing import Array, Chain
from .species import Leg, Plan


@dataclass(frozen=True)
class Body:
    """The shapes of one animal, in the units of its plan with the feet on y = 0."""

    trunk: Chain
    head: Chain
    legs_far: tuple[Chain, ...]
    legs_near: tuple[Chain, ...]
    ear_far: Chain
    ear_near: Chain
    tail: Chain | None
    skull: Array  # (2,) centre of the skull
    pitch: float  # of the head

    def chains(self) -> list[Chain]:
        tail = [] if self.tail is None else [self.tail]
        ears = [self.ear_far, self.ear_near]
        return [self.trunk, self.head, *self.legs_far, *self.legs_near, *ears, *tail]


def draw_body(plan: Plan, rng: np.random.Generator | None) -> Body:
    """An animal in a drawn pose, or at rest where `rng` is None."""

    def spread(low: float, high: float) -> float:
        return (low + high) / 2 if rng is None else rng.uniform(low, high)

    trunk = np.array(plan.trunk)
    neck = np.array(plan.neck)
    girth = spread(0.93, 1.07)
    crouch = spread(0.0, 0.06)
    tilt = spread(-0.10, 0.10)
    turn = rotation(tilt)
    centre = trunk[:, :2].mean(0)

    def carry(points: Array) -> Array:
        """Where the trunk's tilt and crouch take points that are fixed to it."""
        return (points - centre) @ turn.T + centre * (1, 1 - crouch)

    swing = rotation(tilt + spread(*plan.neck_swing))
    base = carry(neck[0, :2])
    nape = base + (neck[:, :2] - neck[0, :2]) @ swing.T
    trunk_points = np.concatenate([carry(trunk[:, :2]), nape])
    radii = np.concatenate([trunk[:, 2] * girth, neck[:, 2]])

    pitch = plan.pitch + tilt + spread(-0.30, 0.30)
    face = rotation(pitch)
    size = spread(0.95, 1.08)
    skull = nape[-1] + face @ (plan.skull * 0.45, -plan.skull * 0.15)
    length, drop, nose = plan.muzzle
    head_points = np.array([(0.0, 0.0), (plan.skull * 0.55 + length, drop)]) * size
    head = Chain(skull + head_points @ face.T, np.array([plan.skull, nose]) * size)

    lean = plan.ear_angle + spread(-0.22, 0.22)
    ears = []
    for side in (-0.26, 0.22):
        foot = np.array([side - 0.25, -0.72]) * plan.skull * size
        way = np.array([-np.sin(lean - side * 0.9), -np.cos(lean - side * 0.9)])
        steps = np.linspace(0, plan.ear_length * size, len(plan.ear))
        points = skull + (foot + steps[:, None] * way) @ face.T
        ears.append(Chain(points, np.array(plan.ear) * size))

    phase = spread(0, 2 * np.pi)
    pace = spread(0.15, 1.0)
    near, far = [], []
    for beat, leg, row in (
        (0.0, plan.hind, near),
        (1.6, plan.front, near),
        (3.1, plan.hind, far),
        (4.7, plan.front, far),
    ):
        shift = (0.07, -0.03) if row is far else (0.0, 0.0)
        angle = phase + beat + spread(-0.5, 0.5)
        row.append(_leg(leg, carry(np.array(leg.joint) + shift), angle, pace, shift[1]))

    tail = None
    if plan.tail:
        rump = carry(trunk[0, :2] + trunk[0, 2] * np.array([-0.80, -0.35]))
        tail = _tail(plan, rump, tilt, spread(-0.35, 0.35), spread(-0.5, 0.5))
    return Body(
        trunk=Chain(trunk_points, radii, 0.035),
        head=head,
        legs_far=tuple(far),
        legs_near=tuple(near),
        ear_far=ears[1],
        ear_near=ears[0],
        tail=tail,
        skull=skull,
        pitch=pitch,
    )


def rotation(angle: float) -> Array:
    """The turn by `angle` radians that takes x towards y, so clockwise as y points down."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _leg(leg: Leg, joint: Array, angle: float, pace: float, ground: float) -> Chain:
    """Two bones of equal length from the joint to a foot on its way, and the foot itself."""
    height = -leg.joint[1] - leg.foot[1]
    rest = leg.joint[0] - 0.01 * leg.knee
    lift = 0.16 * height * pace * max(0.0, np.cos(angle))
    ankle = np.array([rest + leg.stride * pace * np.sin(angle), ground - leg.foot[1] - lift])
    bone = height * 0.51
    reach = ankle - joint
    distance = min(float(np.hypot(*reach)), 1.99 * bone)
    way = reach / np.hypot(*reach)
    ankle = joint + way * distance
    bend = np.sqrt(bone**2 - distance**2 / 4)
    knee = joint + way * distance / 2 + bend * leg.knee * np.array([way[1], -way[0]])
    toe = ankle + rotation(0.5 * lift / height) @ (leg.foot[0], 0.0)
    radii = (*leg.radii, leg.foot[1])
    return Chain(np.array([joint, knee, ankle, toe]), np.array(radii))


def _tail(plan: Plan, root: Array, tilt: float, lift: float, curl: float) -> Chain:
    """A tail that leaves the rump downwards and turns up evenly along its length."""
    count = len(plan.tail)
    turn = plan.tail_curl * (1 + curl) * np.linspace(0, 1, count - 1)
    angle = plan.tail_angle + lift - turn + tilt
    steps = np.stack([-np.cos(angle), np.sin(angle)], 1) * plan.tail_length / (count - 1)
    points = np.concatenate([root[None], root + np.cumsum(steps, 0)])
    return Chain(points, np.array(plan.tail))
