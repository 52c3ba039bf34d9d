"""Short digests of models, data and code, so that one's results are never taken for another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crate_analysis.datasets import SampleDataset
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.models import Edit, UnrolledModel

PICTURES = 16
"""How many of a data set's pictures are looked at."""


def digest(parts: Iterable[bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all parts in a row."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:16]


def of_weights(model: UnrolledModel) -> str:
    """Of all weights and their names."""
    weights = model.state_dict().items()
    return digest(name.encode() + bytes(w.cpu().contiguous().numpy()) for name, w in weights)


def of_data(dataset: SampleDataset) -> str:
    """Of the number of pictures, and of 16 of them, evenly spread, with all that is known of them.

    It tells data sets, splits, seeds and sizes apart without reading all of a large one; a change
    in a picture that is not among the 16 goes unseen.
    """
    count = len(dataset)
    parts = [str(count).encode()]
    for place in range(min(PICTURES, count)):
        try:
            sample = dataset[place * count // min(PICTURES, count)]
        except UnreadableSampleError:
            parts.append(b"unreadable")
            continue
        parts += [
            repr((sample.image.shape, sample.label, sample.mask_names)).encode(),
            sample.image.numpy().tobytes(),
            sample.masks.numpy().tobytes(),
            *(one.numpy().tobytes() for one in (sample.void, sample.crowds) if one.any()),
        ]
    return digest(parts)


def describe(model: UnrolledModel, dataset: SampleDataset) -> dict[str, Any]:
    """Which model and which pictures a measurement is of, JSON-ready."""
    return {"model": model.name, "weights": of_weights(model), **describe_data(dataset)}


def describe_data(dataset: SampleDataset) -> dict[str, Any]:
    """Which pictures these are, JSON-ready; `data` is their fingerprint."""
    return {
        "dataset": f"{dataset.name}, {dataset.split}, seed {dataset.seed}",
        "data": of_data(dataset),
        "pictures": len(dataset),
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
