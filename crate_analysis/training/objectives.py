"""The ways of training, by the name that recipes and cards call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from crate_analysis.models import UnrolledModel
from crate_analysis.training import dino, simdino, supervised
from crate_analysis.training.recipe import Recipe, SupervisedRecipe


class Objective(NamedTuple):
    """One way of training."""

    command: str
    """Subcommand of `python -m crate_analysis.training`."""
    recipe: type[Recipe]
    train: Callable[..., UnrolledModel]
    """`train(recipe, folder, cache, execution)`."""
    report: Callable[..., dict[str, Any]]
    """`report(model, recipe, images, cache)`: what a card says of the trained model."""


OBJECTIVES = {
    objective.recipe.objective: objective
    for objective in (
        Objective("train", SupervisedRecipe, supervised.train, supervised.report),
        Objective("dino", dino.DinoRecipe, dino.train, dino.report),
        Objective("simdino", simdino.SimDinoRecipe, simdino.train, simdino.report),
    )
}
