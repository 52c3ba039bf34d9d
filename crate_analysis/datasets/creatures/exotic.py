"""A second family of species, to which a model that was trained on the first can be transferred.

It shares no body plan, pattern or palette with the first family, but its parts and its structure:
every plan, pattern and palette belongs to at least two species, and for each of the three there
is a pair that differs in nothing else (giraffe and gerenuk in pattern, elephant and mammoth in
palette, camel and anteater in plan). Units are those of `species`.
"""

from __future__ import annotations

from .species import Leg, Palette, Plan, Species

PLANS = {
    "giraffe": Plan(
        trunk=((-0.32, -0.80, 0.155), (-0.04, -0.85, 0.175), (0.24, -0.92, 0.185)),
        neck=((0.28, -1.00, 0.14), (0.42, -1.30, 0.095), (0.53, -1.60, 0.075)),
        neck_swing=(-0.12, 0.50),
        skull=0.105,
        muzzle=(0.19, 0.03, 0.06),
        pitch=0.50,
        eye=(0.035, -0.03, 0.032),
        ear=(0.026, 0.040, 0.014),
        ear_length=0.13,
        ear_angle=0.70,
        front=Leg((0.24, -0.82), (0.10, 0.050, 0.040), (0.03, 0.045), 1, 0.22),
        hind=Leg((-0.32, -0.76), (0.135, 0.052, 0.040), (0.03, 0.045), -1, 0.22),
        tail=(0.030, 0.020, 0.020, 0.022, 0.055, 0.025),
        tail_length=0.52,
        tail_angle=1.30,
        tail_curl=-0.2,
    ),
    "crocodile": Plan(
        trunk=((-0.38, -0.24, 0.165), (0.0, -0.25, 0.195), (0.34, -0.24, 0.17)),
        neck=((0.38, -0.25, 0.15), (0.50, -0.26, 0.125)),
        neck_swing=(-0.30, 0.10),
        skull=0.13,
        muzzle=(0.27, 0.035, 0.062),
        pitch=0.02,
        eye=(0.0, -0.075, 0.038),
        ear=(0.045, 0.045),
        ear_length=0.06,
        ear_angle=0.10,
        front=Leg((0.30, -0.22), (0.095, 0.070, 0.055), (0.085, 0.045), 1, 0.13),
        hind=Leg((-0.34, -0.22), (0.115, 0.075, 0.058), (0.090, 0.045), -1, 0.13),
        tail=(0.150, 0.135, 0.110, 0.080, 0.048, 0.015),
        tail_length=0.70,
        tail_angle=0.15,
        tail_curl=0.7,
    ),
    "elephant": Plan(
        trunk=((-0.30, -0.72, 0.255), (0.0, -0.73, 0.275), (0.24, -0.76, 0.255)),
        neck=((0.30, -0.84, 0.21), (0.40, -0.90, 0.19)),
        neck_swing=(-0.15, 0.25),
        skull=0.195,
        muzzle=(0.44, 0.10, 0.052),
        pitch=1.05,
        eye=(0.06, -0.07, 0.030),
        ear=(0.075, 0.140, 0.150, 0.070),
        ear_length=0.30,
        ear_angle=3.35,
        front=Leg((0.22, -0.60), (0.150, 0.115, 0.098), (0.035, 0.095), 1, 0.15),
        hind=Leg((-0.30, -0.60), (0.180, 0.120, 0.098), (0.035, 0.095), -1, 0.15),
        tail=(0.025, 0.018, 0.018, 0.035),
        tail_length=0.38,
        tail_angle=1.25,
    ),
    "camel": Plan(
        trunk=(
            (-0.36, -0.72, 0.155),
            (-0.16, -0.80, 0.16),
            (-0.03, -0.98, 0.115),
            (0.10, -0.80, 0.16),
            (0.30, -0.71, 0.16),
        ),
        neck=((0.36, -0.68, 0.12), (0.54, -0.68, 0.09), (0.62, -0.88, 0.08), (0.63, -1.06, 0.078)),
        neck_swing=(-0.20, 0.20),
        skull=0.105,
        muzzle=(0.17, 0.045, 0.07),
        pitch=0.15,
        eye=(0.035, -0.035, 0.032),
        ear=(0.028, 0.036, 0.020),
        ear_length=0.08,
        ear_angle=0.35,
        front=Leg((0.29, -0.64), (0.095, 0.050, 0.038), (0.045, 0.050), 1, 0.19),
        hind=Leg((-0.36, -0.66), (0.130, 0.050, 0.038), (0.045, 0.050), -1, 0.19),
        tail=(0.030, 0.022, 0.030, 0.040, 0.020),
        tail_length=0.40,
        tail_angle=1.20,
        tail_curl=-0.2,
    ),
    "anteater": Plan(
        trunk=((-0.34, -0.42, 0.165), (-0.02, -0.44, 0.185), (0.27, -0.45, 0.165)),
        neck=((0.32, -0.48, 0.135), (0.46, -0.53, 0.10)),
        neck_swing=(-0.15, 0.40),
        skull=0.095,
        muzzle=(0.40, 0.04, 0.026),
        pitch=0.35,
        eye=(0.045, -0.025, 0.028),
        ear=(0.036, 0.040),
        ear_length=0.045,
        ear_angle=0.50,
        front=Leg((0.26, -0.38), (0.110, 0.078, 0.066), (0.060, 0.055), 1, 0.15),
        hind=Leg((-0.33, -0.37), (0.130, 0.076, 0.060), (0.060, 0.055), -1, 0.15),
        tail=(0.075, 0.135, 0.175, 0.165, 0.110, 0.030),
        tail_length=0.70,
        tail_angle=0.35,
        tail_curl=0.5,
    ),
}

PALETTES = {
    "rust": Palette((0.62, 0.25, 0.13), (0.97, 0.84, 0.60), (0.85, 0.55, 0.38), (0.30, 0.18, 0.1)),
    "sand": Palette((0.93, 0.83, 0.58), (0.40, 0.20, 0.12), (0.98, 0.94, 0.82), (0.34, 0.22, 0.1)),
    "moss": Palette((0.42, 0.52, 0.20), (0.10, 0.15, 0.07), (0.83, 0.82, 0.52), (0.95, 0.80, 0.1)),
    "dusk": Palette((0.55, 0.47, 0.62), (0.22, 0.13, 0.27), (0.77, 0.68, 0.76), (0.90, 0.60, 0.2)),
}

SPECIES = (
    Species("giraffe", "giraffe", "net", "rust"),
    Species("gerenuk", "giraffe", "saddle", "rust"),
    Species("okapi", "giraffe", "brindle", "dusk"),
    Species("crocodile", "crocodile", "chevrons", "moss"),
    Species("monitor", "crocodile", "rosettes", "moss"),
    Species("gecko", "crocodile", "rosettes", "dusk"),
    Species("elephant", "elephant", "brindle", "dusk"),
    Species("mammoth", "elephant", "brindle", "rust"),
    Species("camel", "camel", "saddle", "sand"),
    Species("llama", "camel", "net", "sand"),
    Species("anteater", "anteater", "saddle", "sand"),
    Species("numbat", "anteater", "chevrons", "moss"),
)
