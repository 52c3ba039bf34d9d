"""Means over images with their uncertainty, taken where they are shown."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap


class MeanInterval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_interval(values: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean of independent values, one an image, and its bootstrap confidence interval (BCa).

    NaN values (an image without the truth that was asked for) are left out. Equal values give an
    interval of width zero. Raises ValueError where fewer than two values are left.
    """
    array = np.asarray(values, dtype=float)
    array = array[~np.isnan(array)]
    if len(array) < 2:
        raise ValueError(f"an interval needs at least 2 values, here are {len(array)}")
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return MeanInterval(mean, mean, mean)
    interval = bootstrap(
        (array,), np.mean, confidence_level=level, n_resamples=2000, batch=200, rng=0
    ).confidence_interval
    return MeanInterval(mean, float(interval.low), float(interval.high))
