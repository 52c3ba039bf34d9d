"""Principal components of patch features, joint over several images.

Yu et al. 2024 (arXiv 2308.16271), Fig. 3, 6 and 9, after Oquab et al. 2024 (DINOv2, arXiv
2304.07193). A component's sign is arbitrary; here a stated rule sets it, which looks at no truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from crate_analysis.probes.parts import separation_auc

Array = NDArray[np.float64]

ROUNDING = 1e-6
"""Relative to the features' size: what varies less is rounding, not a component."""


def pca_scores(
    features: Float[Tensor, "b n c"], grid: tuple[int, int], n_components: int
) -> Float[Tensor, "b n k"]:
    """Scores of all patches on the first k principal components, one PCA for all b images.

    Scores are centred and in the features' units; they are computed on the CPU in double
    precision. Each component is oriented by the first of these that settles it: patches on the
    border of the images score lower on average than those inside, for an image's subject is
    seldom at its edge; its skewness is positive; the first patch off the mean scores positive.
    The sign is thus the same for features rotated or negated. Components that the features do not
    have (of rank less than k) are 0.

    Parameters
    ----------
    features : of the b images' patches, row by row.
    grid : (gh, gw), with gh gw = n.

    Raises ValueError for features that are not finite or the same in all patches, for a grid that
    does not have n patches, and for more components than features or patches less one.
    """
    _check_count(features, n_components)
    flat = _flat(features, grid)
    inside = np.zeros(grid, dtype=bool)
    inside[1:-1, 1:-1] = True
    inside = np.tile(inside.ravel(), len(features))
    scores = _oriented(_components(flat, n_components), inside)
    return torch.from_numpy(scores).to(features).unflatten(0, features.shape[:2])


def pca_rgb(
    features: Float[Tensor, "b n c"],
    grid: tuple[int, int],
    threshold: float | None = None,
    components: tuple[int, int, int] = (0, 1, 2),
    foreground: bool = True,
) -> Float[Tensor, "b gh gw 3"]:
    """Patches as colours: three principal components as red, green and blue, in [0, 1].

    With `foreground` (Yu et al. 2024, Fig. 3), patches that score at most `threshold` on the first
    component of `pca_scores` are background, and NaN; the colours are the components of another
    PCA, of the patches that remain, each oriented by its skewness. Without it (Fig. 6 and 9),
    the colours are components of `pca_scores` itself and every patch has one: `(1, 2, 3)` are the
    figures' colours, `(0, 0, 0)` is their first component in grey.

    Parameters
    ----------
    threshold : in the scores' units, where 0 is the mean over all patches; None takes Otsu's,
        see `otsu_threshold`.
    components : which ones are red, green and blue, from 0. Each is scaled so that its 2nd and
        98th percentiles over the patches shown become 0 and 1; one that does not vary is 0.5.

    Raises ValueError as `pca_scores` does, for components that are not three or are negative, and
    where no patch scores above the threshold.
    """
    if len(components) != 3 or min(components) < 0:
        raise ValueError(f"components={components} must be three, counted from 0")
    count = max(components) + 1
    _check_count(features, count)
    if foreground:
        first = pca_scores(features, grid, 1)[..., 0]
        level = otsu_threshold(first.flatten()) if threshold is None else threshold
        shown = first > level
        if not shown.any():
            raise ValueError(
                f"no patch scores above threshold={level:g}, so no foreground is left; "
                f"scores reach {first.max():g}"
            )
        scores = _oriented(_components(_flat(features, grid)[shown.flatten().cpu().numpy()], count))
    else:
        shown = torch.ones(features.shape[:2], dtype=torch.bool)
        scores = pca_scores(features, grid, count).flatten(0, 1).double().cpu().numpy()
    rgb = features.new_full((*features.shape[:2], 3), torch.nan)
    rgb[shown] = torch.from_numpy(_unit_range(scores[:, components])).to(features)
    return rgb.unflatten(1, grid)


def otsu_threshold(values: Float[Tensor, " n"]) -> float:
    """The cut in two groups with the least variance within them (Otsu 1979), midway between them.

    Raises ValueError where all values are equal.
    """
    ordered = np.sort(values.double().cpu().numpy())
    if ordered[0] == ordered[-1]:
        raise ValueError("all values are equal; a threshold needs some that differ")
    below = np.arange(1, len(ordered))  # how many lie below the cut
    above = len(ordered) - below
    total = np.cumsum(ordered)
    gap = (total[-1] - total[:-1]) / above - total[:-1] / below
    cut = int(np.argmax(below * above * gap**2))
    return float(ordered[cut] + ordered[cut + 1]) / 2


def _check_count(features: Tensor, n_components: int) -> None:
    pictures, patches, width = features.shape
    most = min(pictures * patches - 1, width)
    if not 1 <= n_components <= most:
        raise ValueError(
            f"{n_components} components were asked for, but {pictures} x {patches} patches with "
            f"{width} features have 1 to {most}"
        )


def _flat(features: Tensor, grid: tuple[int, int]) -> Array:
    """The features as (b n, c) in double precision, fit for a PCA."""
    patches, places = features.shape[1], grid[0] * grid[1]
    if places != patches:
        raise ValueError(f"features have {patches} patches, but grid={grid} has {places}")
    flat = features.detach().flatten(0, 1).double().cpu().numpy()
    if not np.isfinite(flat).all():
        raise ValueError("features hold NaN or infinite entries; look for the layer that made them")
    if flat.std(axis=0).max() <= ROUNDING * np.abs(flat).max():
        raise ValueError("features are the same in all patches; PCA needs some that differ")
    return flat


def _components(flat: Array, count: int) -> Array:
    """Scores (patches, count) on the principal components; those that are not there are 0."""
    from sklearn.decomposition import PCA

    scores = np.zeros((len(flat), count))
    present = min(count, len(flat) - 1)
    if present and (flat != flat[0]).any():
        pca = PCA(present, svd_solver="covariance_eigh")
        scores[:, :present] = pca.fit_transform(flat)
    scores[:, scores.std(axis=0) <= ROUNDING * np.abs(flat).max()] = 0
    return scores


def _oriented(scores: Array, inside: NDArray[np.bool_] | None = None) -> Array:
    """Each component with the sign that its patches settle, whatever sign the solver gave it."""
    unit = scores / np.maximum(scores.std(axis=0), np.finfo(float).tiny)
    votes = []
    if inside is not None and inside.any():
        votes.append(unit[inside].mean(axis=0) - unit[~inside].mean(axis=0))
    votes.append((unit**3).mean(axis=0))
    first = (np.abs(unit) > ROUNDING).argmax(axis=0)
    votes.append(unit[first, np.arange(unit.shape[1])])
    sign = np.zeros(unit.shape[1])
    for vote in votes:
        sign = np.where((sign == 0) & (np.abs(vote) > ROUNDING), np.sign(vote), sign)
    return scores * np.where(sign == 0, 1, sign)


def _unit_range(scores: Array) -> Array:
    """Each column from its 2nd percentile (0) to its 98th (1); 0.5 where they are equal."""
    low, high = np.quantile(scores, [0.02, 0.98], axis=0)
    span = high - low
    scaled = (scores - low) / np.where(span > 0, span, 1)
    return np.where(span > 0, scaled, 0.5).clip(0, 1)


def component_auc(
    features: Float[Tensor, "b n d"],
    grid: tuple[int, int],
    truth: Bool[Tensor, "b n"],
    groups: Sequence[Int64[Tensor, " k"]],
) -> Float[Tensor, " b"]:
    """How well the first joint component tells true patches from others, one value an image.

    Each group of images, such as those of one class, has a PCA of its own (Yu et al. 2024, Fig. 3),
    whose first component is scored by its `separation_auc` in each image. Images of no group have
    NaN. Arguments as for `pca_scores`, and the patches of the object.

    >>> features = torch.randn(4, 9, 5)
    >>> component_auc(features, (3, 3), features[..., 0] > 0, [torch.arange(4)]).shape
    torch.Size([4])
    """
    found = torch.full((len(features),), torch.nan, dtype=torch.float64)
    for places in groups:
        scores = pca_scores(features[places], grid, 1)[..., 0]
        found[places] = separation_auc(scores, truth[places]).double()
    return found
