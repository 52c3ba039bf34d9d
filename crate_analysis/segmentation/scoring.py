"""How a map of attention is scored against a true mask: one definition for networks and rivals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from crate_analysis.datasets import Sample
from crate_analysis.datasets.batches import AbsentError
from crate_analysis.segmentation.masks import Rule, attention_mask, average_precision, overlap
from crate_analysis.segmentation.truth import (
    MASK,
    NO_MASKS,
    NO_PARTS,
    VALUES,
    Region,
    Truth,
    Unit,
    by_class,
    undecided_as_background,
)

Value = Literal["iou", "attention", "average_precision"]
Undecided = Literal["left out", "background"]
KEYS = ["model", "maps", "draw", "layer", "rule", "within", "image", *MASK]
"""The columns that say what a row is of."""
OWN = "own"
"""What the column `maps` calls a network's maps of the image itself."""


@dataclass(frozen=True)
class Scoring:
    """How a map is scored against a mask.

    Parameters
    ----------
    keep, rules : how a map becomes the mask that has the IoU, see `attention_mask`.
    within : which pixels count. `image` is all; `object`, for parts only, those of the object that
        the part belongs to (`Sample.part_of`), so that to find the animal is no merit in finding
        its legs.
    unit : `object`, each mask by itself, or `class`, all masks of one name in an image as one.
    undecided : what void pixels and crowds are. `left out`, they count nowhere; `background`, a
        prediction there is wrong.
    values : what is computed. `iou`, of the map's mask; `attention`, the share of the map that
        lies on the mask (of what lies within the region; NaN where nothing does);
        `average_precision`, of the map as it is. All are in [0, 1].

    Raises ValueError for a word that is none of these.

    >>> Scoring(within=("image", "object")).keep
    0.6
    """

    keep: float = 0.6
    rules: Sequence[Rule] = ("mass",)
    within: Sequence[Region] = ("image",)
    unit: Unit = "object"
    undecided: Undecided = "left out"
    values: Sequence[Value] = ("iou", "attention", "average_precision")

    def __post_init__(self) -> None:
        for name, kind in (("rules", Rule), ("within", Region), ("values", Value)):
            given = getattr(self, name)
            given = (given,) if isinstance(given, str) else tuple(given)
            object.__setattr__(self, name, given)
            _check(name, given, get_args(kind))
        _check("unit", [self.unit], get_args(Unit))
        _check("undecided", [self.undecided], get_args(Undecided))
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep} must be a share in (0, 1]")

    def truth(
        self, samples: Sequence[Sample], indices: Sequence[int], grid: tuple[int, int]
    ) -> Truth:
        """The true masks as this scoring sees them."""
        if self.undecided == "background":
            samples = [undecided_as_background(sample) for sample in samples]
        if self.unit == "class":
            samples = [by_class(sample) for sample in samples]
        return Truth(samples, indices, grid)

    def score(
        self,
        truth: Truth,
        maps: Float[Tensor, "b h gh gw"],
        masks: Bool[Tensor, "b h gh gw"] | None = None,
        within: Sequence[Region] | None = None,
    ) -> pd.DataFrame:
        """A row for each rule, region, image, mask and head: `MASK` columns, share and values.

        `share` is that of the pixels that count which are in the mask: the average precision of a
        flat map. `masks` (default: by the rules) are the maps' masks.
        """
        frames = []
        cut = {rule: masks for rule in self.rules}
        if masks is None and "iou" in self.values:
            cut = {rule: attention_mask(maps, self.keep, rule) for rule in self.rules}
        flat = maps.flatten(2).float()
        for region in within or self.within:
            scored, pixels, counted = truth.region(region)
            if not scored.any():
                continue
            share = pixels.sum(-1) / counted.sum(-1)
            found = {"share": share[:, None].expand(-1, maps.shape[1], -1)}
            if "attention" in self.values:
                cover = pixels / truth.pixels_of_patches
                inside = counted / truth.pixels_of_patches
                found["attention"] = (flat @ cover.mT) / (flat @ inside.mT)
            if "average_precision" in self.values:
                found["average_precision"] = average_precision(flat, pixels, counted)
            for rule, chosen in cut.items():
                if chosen is not None and "iou" in self.values:
                    found["iou"] = overlap(chosen.flatten(2).float(), pixels, counted)
                values = {name: found[name] for name in VALUES if name in found}
                frames.append(truth.rows(scored, **values).assign(rule=rule, within=region))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def frame(self, parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
        """All rows in one frame, with `KEYS` first. AbsentError where a region has no mask."""
        columns = [*KEYS, "share", *(name for name in VALUES if name in self.values)]
        rows = [part for part in parts if len(part)]
        frame = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
        absent = {"masks": NO_MASKS} if frame.empty else {}
        if "object" in self.within and "object" not in set(frame.within):
            absent["object"] = NO_PARTS
        if absent:
            raise AbsentError(absent, frame[columns])
        return frame[columns]


def _check(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    if not given:
        raise ValueError(f"{name} is empty: name at least one of {', '.join(known)}")
    for one in given:
        if one not in known:
            raise ValueError(f"{name}={one!r} is not one of {', '.join(known)}")
