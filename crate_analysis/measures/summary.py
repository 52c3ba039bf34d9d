"""Means over images with their uncertainty, taken where they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


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
    from scipy.stats import bootstrap

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


def paired_difference(
    first: ArrayLike | pd.Series, second: ArrayLike | pd.Series, level: float = 0.95
) -> MeanInterval:
    """The mean of `first` less `second`, image by image, and its bootstrap interval (BCa).

    Two series are aligned by their index, which must hold the same images; two arrays go by place.
    Images that either has no value for are left out. Raises ValueError where they are not of the
    same images.

    >>> str(paired_difference([0.5, 0.7], [0.4, 0.4]))
    '0.2 [0.1, 0.3]'
    """
    if isinstance(first, pd.Series) and isinstance(second, pd.Series):
        if first.index.has_duplicates or not first.index.sort_values().equals(
            second.index.sort_values()
        ):
            raise ValueError(
                "the two are not of the same images, one value each: take the values of both by "
                "image, such as frame.set_index('image').iou"
            )
        second = second.reindex(first.index)
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"there are {a.shape} and {b.shape} values; give one of each an image")
    return mean_interval(a - b, level)


def ratio_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean of `first` as a share of the mean of `second`, with its bootstrap interval (BCa).

    The two are of the same images, one value each, such as a score after a change and before it;
    images are drawn with both of their values. Images that either has no value for are left out.
    Raises ValueError for other shapes, and where the mean of `second` is not above 0: of nothing
    no share is left.

    >>> ratio_interval([0.1, 0.2, 0.3], [0.2, 0.4, 0.6])
    MeanInterval(mean=0.5, low=0.5, high=0.5)
    """
    from scipy.stats import bootstrap

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"there are {a.shape} and {b.shape} values; give one of each an image")
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[both], b[both]
    if not len(b) or b.mean() <= 0:
        raise ValueError("the second values have no mean above 0, of which a share could be left")
    share = float(a.mean() / b.mean())
    if np.allclose(a, share * b):
        spread = np.nan if len(a) == 1 else share
        return MeanInterval(share, spread, spread)
    interval = bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        paired=True, vectorized=True,
        confidence_level=level, n_resamples=2000, batch=200, rng=0,
    ).confidence_interval  # fmt: skip
    return MeanInterval(share, float(interval.low), float(interval.high))


def run_interval(values: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean over runs, one value a training, and its t-interval; one run alone has none.

    For statements on a design: what varies is the training's seed, not the images.

    >>> str(run_interval([0.40, 0.42, 0.44]))
    '0.42 [0.37, 0.47]'
    """
    array = np.asarray(values, dtype=float)
    if len(array) == 1:
        return MeanInterval(float(array[0]), np.nan, np.nan)
    return contrast_interval([array], [1], level)


def run_image_interval(values: ArrayLike, level: float = 0.95) -> MeanInterval:
    """The mean over runs and images, for a design and for images beyond those measured.

    Parameters
    ----------
    values : (runs, images), each run's value for each of the same images. NaN values leave their
        image out.

    Both runs and images are taken as drawn at random, and vary independently: the variance of the
    mean is what the runs' means and the images' means vary by, less what both have of the rest (a
    two-way random-effects model); the interval is Student's t with Satterthwaite's degrees of
    freedom (Satterthwaite 1946). Never narrower than that over runs alone. With one run there is
    none. Raises ValueError for another shape and fewer than two images.

    >>> str(run_image_interval([[0.3, 0.5, 0.4, 0.6], [0.4, 0.6, 0.5, 0.7]]))
    '0.5 [-0.135, 1.14]'
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 2:
        raise ValueError(f"values are of shape {array.shape}; give (runs, images)")
    array = array[:, ~np.isnan(array).any(0)]
    runs, images = array.shape
    if images < 2:
        raise ValueError(f"{images} images have a value in all runs; an interval needs two")
    mean = float(array.mean())
    if runs < 2:
        return MeanInterval(mean, np.nan, np.nan)
    by_run, by_image = array.mean(1), array.mean(0)
    rest = array - by_run[:, None] - by_image + mean
    residual = float((rest**2).sum()) / ((runs - 1) * (images - 1))
    across_images = max(0.0, float(by_image.var(ddof=1)) - residual / runs) / images
    return design_interval(by_run, across_images**0.5, float(images - 1), level)


def design_interval(
    values: ArrayLike, image_error: float, image_freedom: float = np.inf, level: float = 0.95
) -> MeanInterval:
    """The mean over runs, one value a run, where the images add an error of their own.

    For metrics of a set of images, such as average precision: `image_error` is the standard error
    over images of the mean over runs, such as the standard deviation of its bootstrap, with
    `image_freedom` degrees of freedom. The two variances are added; Student's t has Satterthwaite's
    degrees of freedom, and the interval is not narrower than `run_interval` of the same values. One
    run alone has none.
    """
    from scipy.stats import t

    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < 2:
        return MeanInterval(mean, np.nan, np.nan)
    across_runs = float(array.var(ddof=1)) / len(array)
    across_images = image_error**2
    total = across_runs + across_images
    if total == 0:
        return MeanInterval(mean, mean, mean)
    freedom = total**2 / (across_runs**2 / (len(array) - 1) + across_images**2 / image_freedom)
    half = float(t.ppf((1 + level) / 2, freedom)) * total**0.5
    half = max(half, float(t.ppf((1 + level) / 2, len(array) - 1)) * across_runs**0.5)
    return MeanInterval(mean, mean - half, mean + half)


def interval_frame(
    frame: pd.DataFrame, value: str, by: Sequence[str], level: float = 0.95
) -> pd.DataFrame:
    """`mean_interval` over the images of each group: the columns of `by`, mean, low, high, images.

    Several rows of an image are averaged first.

    >>> frame = pd.DataFrame({"layer": [0, 0, 1, 1], "image": [0, 1, 0, 1], "iou": [0.2] * 4})
    >>> interval_frame(frame, "iou", ["layer"])
       layer  mean  low  high  images
    0      0   0.2  0.2   0.2       2
    1      1   0.2  0.2   0.2       2
    """
    keys = list(by)
    images = frame.groupby([*keys, "image"], sort=False, dropna=False)[value].mean().reset_index()
    rows = []
    for key, group in images.groupby(keys, sort=False, dropna=False):
        rows.append((*key, *mean_interval(group[value], level), int(group[value].notna().sum())))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "images"])


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
    from scipy.stats import t

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
