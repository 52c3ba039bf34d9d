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
from crate_analysis.interventions.outcomes import (
    Questions,
    answer,
    chosen_costs,
    costs,
    head_costs,
    outcomes,
    questions_of,
    rank_agreement,
)
from crate_analysis.interventions.recording import Recording, record
from crate_analysis.interventions.twins import carried

__all__ = [
    "Change",
    "Questions",
    "Recording",
    "ablate_head",
    "answer",
    "carried",
    "change",
    "chosen_costs",
    "costs",
    "cut_atom",
    "freeze_attention",
    "head_costs",
    "outcomes",
    "patch",
    "questions_of",
    "rank_agreement",
    "record",
    "replace_step",
    "scale",
    "skip",
]
