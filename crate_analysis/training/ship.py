"""From a finished run to a shipped model: weights in half precision, and a card that says how."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crate_analysis.models.checkpoints import load_model, save_model
from crate_analysis.training.images import CachedImages
from crate_analysis.training.objectives import OBJECTIVES
from crate_analysis.training.recipe import Recipe, read_recipe
from crate_analysis.writing import write_bytes, write_text

REPORTED_SPLIT = "val"
REPORTED_IMAGES = 2_000


def ship(
    run: Path,
    name: str,
    folder: Path,
    cache: Path,
    n_snapshots: int = 0,
    gate: float | None = None,
    replace: bool = False,
) -> None:
    """Write `name.safetensors` (float16) and `name.json`, its card, to `folder`.

    `gate` is the least accuracy, a share in [0, 1], that was declared for a model which counts as
    evidence; by default what the objective itself asks for, if anything. The card says whether the
    model passes. With `n_snapshots` also the run's snapshots, to `snapshots/name/`: the first, at
    initialisation, and the last so many less one of those before the end, which is the model.

    The accuracy on the card is that of the file as shipped, on the split that the chapters report.
    `cache` is where rendered images are kept. Raises FileNotFoundError where `run` has not
    finished, ValueError for a name that is no plain file name, or is shipped already (unless
    `replace`).
    """
    check_name(name)
    if gate is not None and not 0 <= gate <= 1:
        raise ValueError(f"gate={gate} must be a share in [0, 1]")
    there = [path for path in _files_of(name, folder) if path.exists() or path.is_symlink()]
    if there and not replace:
        raise ValueError(
            f"there is a shipped model {name!r} already ({there[0]}): choose another name, or pass "
            "--replace"
        )
    if not (run / "model.safetensors").exists():
        raise FileNotFoundError(
            f"{run} has no model.safetensors: its training has not finished; run it again to go on"
        )
    kinds = {name: objective.recipe for name, objective in OBJECTIVES.items()}
    recipe = read_recipe(run / "recipe.json", kinds)
    kept = _kept_snapshots(run / "snapshots", n_snapshots)
    weights = folder / f"{name}.safetensors"
    save_model(load_model(run / "model.safetensors"), weights, dtype=torch.float16)
    model = load_model(weights)
    data = CachedImages(
        recipe.dataset,
        REPORTED_SPLIT,
        model.config.image_size,
        REPORTED_IMAGES,
        recipe.data_seed,
        cache,
    )
    report = OBJECTIVES[recipe.objective].report(model, recipe, data, cache)
    least = report.pop("gate", None) if gate is None else gate
    card = {
        "name": name,
        "arch": recipe.arch,
        "training_data": f"{recipe.dataset}, {recipe.n_train:,} images of "
        f"{model.config.image_size} x {model.config.image_size}, seed {recipe.data_seed}",
        "recipe": f"{recipe.objective}, {recipe.optimizer} {recipe.learning_rate:g}, "
        f"batch {recipe.batch_size}, {recipe.epochs} epochs ({recipe.steps:,} steps), "
        f"{recipe.precision}, seed {recipe.seed}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **report,
        **({} if least is None else _gate(report["validation_accuracy"], least)),
        "validation_images": len(data),
        "classes": data.classes,
        "steps": recipe.steps,
        "command": command(recipe, run, name, n_snapshots, gate),
        "settings": recipe.to_dict(),
        "curve": pd.read_csv(run / "log.csv").to_dict("records"),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    _ship_snapshots(kept, folder / "snapshots" / name)
    write_text(folder / f"{name}.json", json.dumps(card, indent=2) + "\n")


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can be a shipped model's: one plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) or name.endswith(SUFFIXES):
        raise ValueError(
            f"{name!r} cannot be a model's name: write letters, digits and - _ . + without a "
            "folder or a suffix, such as crate-creatures"
        )


SUFFIXES = (".safetensors", ".json", ".part")


def _files_of(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """A shipped model's weights, card and snapshots."""
    return folder / f"{name}.safetensors", folder / f"{name}.json", folder / "snapshots" / name


def _gate(accuracy: float, least: float) -> dict[str, Any]:
    return {"gate": least, "passes_gate": accuracy > least}


def _kept_snapshots(kept: Path, count: int) -> list[Path]:
    first, *later = sorted(kept.glob("step-*.safetensors"))[:-1]
    if count > 1 + len(later):
        raise ValueError(f"{kept} has {1 + len(later)} snapshots before the end, not {count}")
    return [first, *later[len(later) - count + 1 :]] if count else []


def _ship_snapshots(kept: list[Path], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of the model that is replaced
    for path in kept:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / path.name, path.read_bytes())


def command(
    recipe: Recipe, run: Path, name: str, n_snapshots: int, gate: float | None = None
) -> str:
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
    least = "" if gate is None else f" --gate {gate:g}"
    return f"{learn} && {module} ship {run.as_posix()} {name}{kept}{least}"
