"""Choosing a layer or a head without looking at the images that it is scored on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

VALUES = ("share", "iou", "attention", "average_precision", "others", "image_specific", "value")
"""Columns that hold values and are not what a row is of."""
WITHIN_IMAGE = ("place", "mask", "is_part", "head", "draw")
"""What an image may have several rows of: they are averaged."""


def cross_fit(
    frame: pd.DataFrame,
    choose: str | Sequence[str],
    value: str = "iou",
    by: Sequence[str] = (),
    seed: int | None = None,
) -> pd.DataFrame:
    """Choose on one half of the images, score on the other, both ways.

    The best of several layers or heads is best by luck too; scored on the images that it was
    chosen on, it is too good. Here every image is scored by the choice of the half that it is not
    in, so that the mean over images is the average of both ways.

    Parameters
    ----------
    frame : with a column `image`, the columns of `choose` and values, such as those of
        `best_heads`, `head_scores` or `measure_layers`.
    choose : the columns that are chosen, such as ``"layer"`` or ``["layer", "head"]``: the entries
        with the highest mean of `value` over images (of equals the first). The mean over an
        image's rows comes first.
    by : further columns within whose entries each choice is made anew, such as ``["mask"]`` for a
        head for each name. Every column that is not of an image's masks, heads or draws and holds
        no values, such as model, maps, weights or step, is one anyway.
    seed : the halves are every other image and the rest, in the order of their indices; with a
        seed, random halves.

    Returns a row for each of these entries and image: their columns, image, half (0 or 1, of the
    image), the columns of `choose` as chosen on the other half, and the mean of each column of
    values that the frame has. `mean_interval` of one entry's rows is its statement.

    Raises ValueError for a column that the frame lacks, and where a half has no value to choose by.

    >>> import pandas as pd
    >>> two = {"image": [0, 0, 1, 1], "layer": [0, 1, 0, 1], "iou": [0.2, 0.4, 0.3, 0.1]}
    >>> cross_fit(pd.DataFrame(two), "layer")
       image  half  layer  iou
    0      0     0      0  0.2
    1      1     1      1  0.1
    """
    chosen = [choose] if isinstance(choose, str) else list(choose)
    columns = [str(name) for name in frame]
    other = {"image", value, *chosen, *VALUES, *WITHIN_IMAGE} - set(by)
    keys = [*(name for name in columns if name not in other and name not in by), *by]
    missing = [name for name in ("image", *chosen, value, *by) if name not in columns]
    if missing:
        raise ValueError(f"the frame has no column {missing[0]!r}; it has {', '.join(columns)}")
    values = [name for name in dict.fromkeys([*VALUES, value]) if name in columns]
    means = (
        frame.groupby([*keys, *chosen, "image"], sort=False, dropna=False)[values]
        .mean()
        .reset_index()
    )
    half = _halves(means["image"].to_numpy(), seed)
    means = means.assign(half=means["image"].map(half))
    scored = []
    for ours in (0, 1):
        here, there = means[means.half == ours], means[(means.half != ours) & means[value].notna()]
        ranked = (
            there.groupby([*keys, *chosen], sort=False, dropna=False)[value].mean().reset_index()
        )
        ranked = ranked.sort_values(value, ascending=False, kind="stable")
        best = (ranked.drop_duplicates(keys) if keys else ranked[:1])[[*keys, *chosen]]
        lost = _lost(here[keys], best[keys]) if keys else ""
        if lost or best.empty:
            raise ValueError(
                f"one half of the images has no {value}{lost} to choose by; take more images"
            )
        scored.append(here.merge(best, on=[*keys, *chosen]))
    order = [*keys, "image", "half", *chosen, *values]
    found = pd.concat(scored, ignore_index=True)[order]
    return found.sort_values([*keys, "image"], kind="stable", ignore_index=True)


def _lost(wanted: pd.DataFrame, known: pd.DataFrame) -> str:
    """The first entry that is wanted and not known, in words; empty where all are."""
    pairs = wanted.drop_duplicates().merge(known, how="left", indicator=True)
    missing = pairs[pairs["_merge"] == "left_only"].drop(columns="_merge")
    return " of " + ", ".join(map(str, missing.iloc[0])) if len(missing) else ""


def _halves(images: np.ndarray, seed: int | None) -> dict[int, int]:
    """The half of each image."""
    different = np.unique(images)
    if seed is not None:
        different = np.random.default_rng(seed).permutation(different)
    return {image: place % 2 for place, image in enumerate(different.tolist())}
