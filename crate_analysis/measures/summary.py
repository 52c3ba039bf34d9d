"""Means over images with their uncertainty, taken where they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, t


class MeanInterval(NamedTuple):
    """A mean and the ends of its confidence interval, which are NaN where it has none."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:.3g} [no interval]"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean of independent values, one an image, and its bootstrap confidence interval (BCa).

    NaN values (an image without the truth that was asked for) are left out. Equal values give an
    interval of width zero; a single one has none, and its ends are NaN. Raises ValueError where no
    value is left.
    """
    array = np.asarray(values, dtype=float)
    array = array[~np.isnan(array)]
    if not len(array):
        raise ValueError("there is no value to take the mean of, or all are NaN")
    mean = float(array.mean())
    if len(array) == 1:
        return MeanInterval(mean, np.nan, np.nan)
    if np.ptp(array) == 0:
        return MeanInterval(mean, mean, mean)
    interval = bootstrap(
        (array,), np.mean, confidence_level=level, n_resamples=2000, batch=200, rng=0
    ).confidence_interval
    return MeanInterval(mean, float(interval.low), float(interval.high))


def contrast_interval(
    groups: Sequence[ArrayLike], weights: ArrayLike, level: float = 0.95
) -> MeanInterval:
    """A weighted sum of the means of some groups, and its confidence interval.

    For experiments that were repeated a few times, such as training runs with several seeds:
    `weights` (-1, 1) is the difference of two groups, (1, -1, -1, 1) the interaction of two
    factors whose four combinations are the groups. Repeats are taken as independent, normal, and
    equally spread in all groups, whose variances are pooled (Student's t; for two groups this is
    the two-sample t-interval). Raises ValueError for weights of another number than the groups,
    an empty group, or where no group was repeated.
    """
    arrays = [np.asarray(group, dtype=float) for group in groups]
    factors = np.asarray(weights, dtype=float)
    if len(arrays) != len(factors):
        raise ValueError(f"{len(factors)} weights for {len(arrays)} groups; give one each")
    sizes = np.array([len(array) for array in arrays])
    freedom = int(sizes.sum() - len(arrays))
    if sizes.min() < 1 or freedom < 1:
        raise ValueError(
            f"groups of {sizes.tolist()} values have no spread; none may be empty, and one must "
            "have at least 2"
        )
    squares = sum(((array - array.mean()) ** 2).sum() for array in arrays)
    mean = float(sum(w * array.mean() for w, array in zip(factors, arrays, strict=True)))
    error = np.sqrt(squares / freedom * (np.square(factors) / sizes).sum())
    half = float(t.ppf((1 + level) / 2, freedom) * error)
    return MeanInterval(mean, mean - half, mean + half)
