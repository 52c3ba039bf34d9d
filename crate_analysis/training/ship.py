"""From a finished run to a shipped model: weights in half precision, and a card that says how."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch

from crate_analysis.models.checkpoints import load_model, save_model
from crate_analysis.training.objectives import OBJECTIVES
from crate_analysis.training.pictures import CachedPictures
from crate_analysis.training.recipe import Recipe, read_recipe
from crate_analysis.writing import write_text

REPORTED_SPLIT = "val"
REPORTED_PICTURES = 2_000


def ship(run: Path, name: str, folder: Path, cache: Path, n_snapshots: int = 0) -> None:
    """Write `name.safetensors` (float16) and `name.json`, its card, to `folder`.

    With `n_snapshots` also the run's snapshots, to `snapshots/name/`: the first, at
    initialisation, and the last so many less one of those before the end, which is the model.

    The accuracy on the card is that of the file as shipped, on the split that the chapters report.
    `cache` is where rendered pictures are kept. Raises FileNotFoundError where `run` has not
    finished.
    """
    if not (run / "model.safetensors").exists():
        raise FileNotFoundError(
            f"{run} has no model.safetensors: its training has not finished; run it again to go on"
        )
    kinds = {name: objective.recipe for name, objective in OBJECTIVES.items()}
    recipe = read_recipe(run / "recipe.json", kinds)
    _ship_snapshots(run / "snapshots", folder / "snapshots" / name, n_snapshots)
    weights = folder / f"{name}.safetensors"
    save_model(load_model(run / "model.safetensors"), weights, dtype=torch.float16)
    model = load_model(weights)
    pictures = CachedPictures(
        recipe.dataset,
        REPORTED_SPLIT,
        model.config.image_size,
        REPORTED_PICTURES,
        recipe.data_seed,
        cache,
    )
    card = {
        "name": name,
        "arch": recipe.arch,
        "training_data": f"{recipe.dataset}, {recipe.n_train:,} pictures of "
        f"{model.config.image_size} x {model.config.image_size}, seed {recipe.data_seed}",
        "recipe": f"{recipe.objective}, {recipe.optimizer} {recipe.learning_rate:g}, "
        f"batch {recipe.batch_size}, {recipe.epochs} epochs ({recipe.steps:,} steps), "
        f"{recipe.precision}, seed {recipe.seed}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **OBJECTIVES[recipe.objective].report(model, recipe, pictures, cache),
        "validation_pictures": len(pictures),
        "classes": pictures.classes,
        "steps": recipe.steps,
        "command": command(recipe, run, name, n_snapshots),
        "settings": recipe.to_dict(),
        "curve": pd.read_csv(run / "log.csv").to_dict("records"),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    write_text(folder / f"{name}.json", json.dumps(card, indent=2) + "\n")


def _ship_snapshots(kept: Path, folder: Path, count: int) -> None:
    first, *later = sorted(kept.glob("step-*.safetensors"))[:-1]
    if count > 1 + len(later):
        raise ValueError(f"{kept} has {1 + len(later)} snapshots before the end, not {count}")
    for path in [first, *later[len(later) - count + 1 :]] if count else []:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{path.name}.part"
        shutil.copyfile(path, part)
        os.replace(part, folder / path.name)


def command(recipe: Recipe, run: Path, name: str, n_snapshots: int) -> str:
    """The two commands that make the model again."""
    module = "python -m crate_analysis.training"
    changed = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        flag = field.name.replace("_", "-")
        if field.name == "overrides" or value == field.default:
            continue
        if isinstance(value, bool):
            changed.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            changed.append(f"--{flag} {shlex.quote(str(value))}")
    if recipe.overrides:
        changed.append("--set " + " ".join(f"{k}={v}" for k, v in recipe.overrides.items()))
    verb = OBJECTIVES[recipe.objective].command
    learn = " ".join([module, verb, run.as_posix(), *changed])
    kept = f" --snapshots {n_snapshots}" if n_snapshots else ""
    return f"{learn} && {module} ship {run.as_posix()} {name}{kept}"
