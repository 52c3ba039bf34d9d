"""Changing one thing on the way through a network, to see what rests on it."""

from crate_analysis.interventions.edits import (
    Change,
    ablate_head,
    change,
    cut_atom,
    freeze_attention,
    patch,
    replace_step,
    scale,
    skip,
)
from crate_analysis.interventions.recording import Recording, record

__all__ = [
    "Change",
    "Recording",
    "ablate_head",
    "change",
    "cut_atom",
    "freeze_attention",
    "patch",
    "record",
    "replace_step",
    "scale",
    "skip",
]
