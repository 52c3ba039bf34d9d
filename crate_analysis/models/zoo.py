"""The shipped models: in the data folder, weights `NAME.safetensors` with a card `NAME.json`.

Weights that were kept along a model's training lie in `snapshots/NAME/step-N.safetensors`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from crate_analysis.paths import data_folder

CARD_FIELDS = ("name", "arch", "training_data", "recipe", "parameters", "validation_accuracy")


def shipped_files() -> dict[str, Path]:
    """The weights of each shipped model, by name."""
    paths = data_folder().glob("*.safetensors")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def snapshot_files(weights: Path) -> dict[int, Path]:
    """The weights kept along a model's training, by step and in order; none is an empty dict.

    They are files `step-N` in `snapshots/` beside the model's own weights, as a training run keeps
    them, or in a folder there with the model's name. A shipped model's last step, which its card
    tells, is the model itself.
    """
    folder = weights.parent / "snapshots"
    if (folder / weights.stem).is_dir():
        folder = folder / weights.stem
    found = {
        int(match[1]): path
        for path in folder.glob("step-*")
        if (match := re.fullmatch(r"step-(\d+)", path.stem))
    }
    card = weights.with_suffix(".json")
    if found and card.exists():
        found[json.loads(card.read_text(encoding="utf-8"))["steps"]] = weights
    return dict(sorted(found.items()))


def list_models() -> pd.DataFrame:
    """One row a shipped model, sorted by name; `load_model` takes the names.

    Columns: name, arch, training data, recipe, parameters (a count), validation accuracy (a share
    in [0, 1]), gate (`passed`; `failed` where the accuracy is not above the declared least one, so
    that the model did not learn its task and is no evidence; `none` where none was declared), file
    size (MB). Raises ValueError that names a card which cannot be read, lacks a
    field, or has no weights beside it.
    """
    files = shipped_files()
    rows = [
        _row(card, files)
        for card in sorted(data_folder().glob("*.json"), key=lambda card: card.stem)
    ]
    columns = [*(field.replace("_", " ") for field in CARD_FIELDS), "gate", "file size (MB)"]
    return pd.DataFrame(rows, columns=columns)


def gate_note(name: str) -> str | None:
    """Why a shipped model is no evidence, in a sentence; None for one that passes, or any other.

    >>> gate_note("crate-creatures") is None
    True
    """
    path = data_folder() / f"{name}.json"
    if name not in shipped_files() or not path.exists():
        return None
    card = _card(path)
    if _gate(card) != "failed":
        return None
    return (
        f"{name} did not learn its task: its accuracy is {card['validation_accuracy']:.0%}, and "
        f"that of {card.get('gate_of', 'the declared gate')} {card['gate']:.0%}; no conclusion is "
        "drawn from it"
    )


def _gate(card: dict[str, Any]) -> str:
    if "gate" not in card:
        return "none"
    return "passed" if card["validation_accuracy"] > card["gate"] else "failed"


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: this model card is not JSON: {error}") from error
    missing = [field for field in CARD_FIELDS if not isinstance(card, dict) or field not in card]
    if missing:
        raise ValueError(f"{path}: this model card lacks {', '.join(missing)}")
    return card


def _row(path: Path, files: dict[str, Path]) -> list[Any]:
    card = _card(path)
    if card["name"] != path.stem or path.stem not in files:
        raise ValueError(
            f"{path}: this model card is for {card['name']!r}, "
            f"and needs that name and weights {path.stem}.safetensors beside it"
        )
    megabytes = round(files[path.stem].stat().st_size / 1e6, 2)
    return [*(card[field] for field in CARD_FIELDS), _gate(card), megabytes]
