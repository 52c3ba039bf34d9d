"""Short digests of models, data and code, so that one's results are never taken for another's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crate_analysis.datasets import SampleDataset
from crate_analysis.datasets.contents import of_content, of_data, of_files
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.names import digest


def of_weights(model: UnrolledModel) -> str:
    """Of all weights and their names."""
    weights = model.state_dict().items()
    return digest(
        part for name, w in weights for part in (name.encode(), bytes(w.cpu().contiguous().numpy()))
    )


def describe(model: UnrolledModel, dataset: SampleDataset) -> dict[str, Any]:
    """Which model and which images a measurement is of, JSON-ready."""
    return {"model": model.name, "weights": of_weights(model), **describe_data(dataset)}


def describe_data(dataset: SampleDataset) -> dict[str, Any]:
    """Which images these are, JSON-ready.

    `data` is the fingerprint of what they show, the same on every machine, and `files` that of the
    files' sizes and times, None for generated images.
    """
    return {
        "dataset": f"{dataset.name}, {dataset.split}, seed {dataset.seed}",
        "data": of_content(dataset),
        "files": of_files(dataset),
        "images": len(dataset),
        "image_size": dataset.image_size,
    }


def of_edits(edits: Sequence[Edit]) -> list[dict[str, str]]:
    """What each edit is and its fingerprint, JSON-ready. Raises ValueError for one without."""
    found = []
    for edit in edits:
        if not hasattr(edit, "fingerprint"):
            raise ValueError(
                f"{edit} has no fingerprint, by which results are told apart; take one of "
                "crate_analysis.interventions"
            )
        found.append({"edit": str(edit), "fingerprint": edit.fingerprint})
    return found


def of_code(*paths: Path) -> str:
    """Of Python files, and of all those in folders, in whichever order they are named."""
    files = {file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}
    return digest(file.read_bytes() for file in sorted(files))


__all__ = [
    "describe",
    "describe_data",
    "digest",
    "of_code",
    "of_content",
    "of_data",
    "of_files",
    "of_weights",
]
