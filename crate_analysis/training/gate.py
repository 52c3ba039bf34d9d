"""The gate of shipped models: which of them learned more than raw pixels tell.

``python -m crate_analysis.training.gate`` measures it for every shipped model, or for those that
are named, and writes it into their cards. A network that misses it did not learn its task: it is
shown as a failure, and no conclusion is drawn from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crate_analysis.models import load_model
from crate_analysis.models.zoo import list_models, shipped_files
from crate_analysis.paths import data_folder
from crate_analysis.probes.controls import CELLS, pixel_features
from crate_analysis.training.images import CachedImages
from crate_analysis.training.knn import NEIGHBOURS, knn_accuracy
from crate_analysis.training.ship import REPORTED_IMAGES, REPORTED_SPLIT
from crate_analysis.writing import write_text

KNOWN = 4_000
"""Training images that vote."""
GATE_OF = (
    f"a vote of the {NEIGHBOURS} nearest of {KNOWN:,} training images among raw pixels "
    f"({CELLS} x {CELLS})"
)


@lru_cache
def raw_pixel_accuracy(dataset: str, image_size: int, data_seed: int, cache: Path) -> float:
    """The accuracy that a vote of neighbours among raw pixels has, in [0, 1]; no network is run.

    Of the images that cards report on, by training images of the same data set.
    """
    voting, asked = (
        _features(CachedImages(dataset, split, image_size, count, data_seed, cache))
        for split, count in (("train", KNOWN), (REPORTED_SPLIT, REPORTED_IMAGES))
    )
    return knn_accuracy(*voting, *asked)


def _features(data: CachedImages) -> tuple[Tensor, Tensor]:
    images, labels = data.batch(list(range(len(data))))
    return pixel_features(images), labels


def gated(card: Mapping[str, Any], image_size: int, cache: Path) -> dict[str, Any]:
    """A card with its gate: what was declared, if anything, and at least what raw pixels tell."""
    settings = card["settings"]
    level = raw_pixel_accuracy(settings["dataset"], image_size, settings.get("data_seed", 0), cache)
    declared = card.get("gate", 0.0) if card.get("gate_of") is None else 0.0
    of = {"gate_of": GATE_OF} if level >= declared else {}
    least = max(level, declared)
    passes = card["validation_accuracy"] > least
    return {**card, "gate": least, **of, "raw_pixel_accuracy": level, "passes_gate": passes}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the gate into cards, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m crate_analysis.training.gate")
    parser.description = __doc__
    parser.add_argument("names", nargs="*", help="shipped models; all when left out")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/images"), help="where rendered images are kept"
    )
    options = parser.parse_args(arguments)
    files = shipped_files()
    unknown = [name for name in options.names if name not in files]
    if unknown:
        sys.exit(f"error: no shipped model {unknown[0]!r}; there are {', '.join(files)}")
    for name in options.names or files:
        path = data_folder() / f"{name}.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        size = load_model(files[name]).config.image_size
        write_text(path, json.dumps(gated(card, size, options.cache), indent=2) + "\n")
    frame = list_models()
    print(frame[["name", "validation accuracy", "gate"]].to_string(index=False))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
