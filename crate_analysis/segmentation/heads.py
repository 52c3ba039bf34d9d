"""Which head stands for which part, and whether it does so in one kind of image as in another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from crate_analysis.measures.choice import VALUES

NOT_CHOSEN_FOR = {"image", "draw", "place", "layer", "head", *VALUES}
"""Columns that a head is chosen from, or whatever their entries are."""


def choose_heads(scores: pd.DataFrame, value: str = "average_precision") -> pd.DataFrame:
    """For each mask, the one head of all layers with the highest mean value.

    `scores` is a frame of `head_scores`. Returns a row for each mask's name, parts and whole
    objects apart (and for each model, maps, rule, within, and whatever else a row is of): its layer
    and head (of equals the first, from the first layer on) and that mean over the images that show
    the mask. Of many heads one is best by luck: score the choice on other images, or choose and
    score with `cross_fit`.
    """
    keys = [name for name in scores if name not in NOT_CHOSEN_FOR]
    means = scores.groupby([*keys, "layer", "head"], dropna=False)[value].mean().reset_index()
    best = means.groupby(keys, dropna=False)[value].idxmax()
    return means.loc[best].reset_index(drop=True)


def head_agreement(
    values: Float[np.ndarray, "*m i k"], groups: Shaped[np.ndarray, " i"]
) -> Float[np.ndarray, "*m g g"]:
    """Whether the heads that do well in one group of images do well in another, in [-1, 1].

    Parameters
    ----------
    values : a score of each of k heads for each of i images, NaN where an image has none.
    groups : the group (such as the species) of each image.

    Entry a, b is Spearman's rank correlation of the heads' mean scores over half of group a's
    images with those over half of group b's: 1 for one order of heads, about 0 for unrelated
    ones. The halves are every other image and the rest, and the two ways to pair them are
    averaged. So the diagonal compares a group with itself on other images, which is the most to
    be expected of so few. Rows follow the sorted groups; NaN where a group has no scores in a half.

    Raises ValueError for fewer than two heads.
    """
    return _agreement(values, _halves(groups))


def agreement_intervals(
    values: Float[np.ndarray, "m i k"],
    groups: Shaped[np.ndarray, " i"],
    pairs: Mapping[str, Bool[np.ndarray, "g g"]],
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """`head_agreement` averaged over m masks and some pairs of groups, with its interval.

    `pairs` names sets of entries of the matrix, such as the diagonal. Returns a row for each name:
    pairs, mean, low, high. The interval is the normal one with the bootstrap's standard error over
    the images of each half of each group. Resampled means are noisier and so agree less, which
    leaves that error about right but would move an interval of percentiles off the mean.

    Raises ValueError for fewer than two heads and for pairs without an entry.
    """
    from scipy.stats import norm

    for name, entries in pairs.items():
        if not entries.any():
            raise ValueError(f"pairs {name!r} hold no entry; leave them out")
    halves = _halves(groups)
    draws = _resample(halves, resamples, np.random.default_rng(seed))
    found, again = _agreement(values, halves), _agreement(values, draws)
    width = norm.ppf((1 + level) / 2)
    rows = []
    for name, chosen in pairs.items():
        mean = float(np.nanmean(found[..., chosen]))
        error = width * float(np.nanmean(again[..., chosen], axis=(-2, -1)).std(ddof=1))
        rows.append((name, mean, max(-1.0, mean - error), min(1.0, mean + error)))
    return pd.DataFrame(rows, columns=["pairs", "mean", "low", "high"])


def _halves(groups: Shaped[np.ndarray, " i"]) -> Float[np.ndarray, "s i"]:
    """Which images are in the first half of each group, then in the second: 0 or 1."""
    turn = pd.Series(groups).groupby(groups).cumcount().to_numpy() % 2
    names = np.unique(groups)
    return np.array([(groups == g) & (turn == half) for half in (0, 1) for g in names], float)


def _resample(
    halves: Float[np.ndarray, "s i"], resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "r 1 s i"]:
    """How often each draw with replacement takes each image of each half."""
    counts = np.zeros((resamples, *halves.shape))
    for half, members in enumerate(halves):
        drawn = np.flatnonzero(members)
        if len(drawn):
            even = np.full(len(drawn), 1 / len(drawn))
            counts[:, half, drawn] = rng.multinomial(len(drawn), even, size=resamples)
    return counts[:, None]


def _agreement(
    values: Float[np.ndarray, "*m i k"], weights: Float[np.ndarray, "*r s i"]
) -> Float[np.ndarray, "*_ g g"]:
    from scipy.stats import rankdata

    if values.shape[-1] < 2:
        raise ValueError("one head agrees with itself everywhere; give the scores of at least 2")
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # a half without scores has no mean
        means = (weights @ np.where(known, values, 0)) / (weights @ known)
        ranks = rankdata(means, axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        ranks /= np.linalg.norm(ranks, axis=-1, keepdims=True)
    first, second = np.split(ranks, 2, axis=-2)
    one_way = first @ second.swapaxes(-1, -2)
    return (one_way + one_way.swapaxes(-1, -2)) / 2
