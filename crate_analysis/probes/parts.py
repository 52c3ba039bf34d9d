"""What patch features say of each patch: which part it shows, and how well that is told.

Labels of patches are integers on the patch grid, (b, n), with -1 for patches that have none.
Measures give one value an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.checks import check_match
from crate_analysis.datasets import Sample

UNLABELLED = -1


def patch_labels(
    samples: Sequence[Sample],
    grid: tuple[int, int],
    names: Sequence[str],
    of: Literal["masks", "parts", "objects"] = "masks",
) -> Int64[Tensor, "b n"]:
    """For each patch the index in `names` of the mask that covers most of its pixels.

    A patch of which all these masks together cover less than half has label -1. So a patch of
    mixed content counts for what most of it shows; of masks that cover the same, the first named
    counts. Masks of one name are taken together, and an image may lack some. `of` says which masks
    are looked at: all, only those that are part of another one (`Sample.part_of`), or only whole
    objects.

    Raises ValueError where the grid does not divide an image.
    """
    labels = torch.full((len(samples), grid[0] * grid[1]), UNLABELLED)
    for row, sample in zip(labels, samples, strict=True):
        height, width = sample.image.shape[1:]
        if height % grid[0] or width % grid[1]:
            raise ValueError(
                f"a grid of {grid[0]} x {grid[1]} patches does not divide {sample.path}, "
                f"{height} x {width} pixels"
            )
        planes = torch.zeros(len(names), height, width, dtype=torch.bool)
        masks = zip(sample.masks, sample.mask_names, sample.part_of, strict=True)
        for mask, name, whole in masks:
            is_meant = of == "masks" or (of == "parts") == (whole is not None)
            if name in names and is_meant:
                planes[list(names).index(name)] |= mask
        planes = torch.cat([planes, planes.any(0, keepdim=True)])
        cells = planes.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1))
        share = cells.double().mean((2, 4)).flatten(1)
        labelled = share[-1] >= 0.5
        row[labelled] = share[:-1, labelled].argmax(0)
    return labels


def separation_auc(scores: Float[Tensor, "b n"], truth: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """How surely a true patch outscores one that is not: the area under the ROC curve, in [0, 1].

    One value an image; 0.5 is chance, below it the scores point the wrong way; ties count half. An
    image whose patches are all true, or all not, has NaN. Raises ValueError for NaN scores.
    """
    from scipy.stats import rankdata

    check_match(scores=scores, truth=truth)
    if scores.isnan().any():
        raise ValueError("scores hold NaN entries; look for what made them")
    ranks = torch.from_numpy(rankdata(scores.cpu().numpy(), axis=1)).to(scores)
    positive, negative = truth.sum(1), (~truth).sum(1)
    above = (ranks * truth).sum(1) - positive * (positive + 1) / 2
    return above / (positive * negative)


def linear_probe(
    train_features: Float[Tensor, "a n c"],
    train_labels: Int64[Tensor, "a n"],
    features: Float[Tensor, "b n c"],
    n_components: int | None = None,
) -> Int64[Tensor, "b n"]:
    """What a linear classifier of single patches says of every patch.

    Multinomial logistic regression on standardised features, classes weighted evenly, C = 1,
    trained on the patches of `train_features` that have a label. `n_components` keeps only as many
    principal components of those patches.

    Raises ValueError where the training patches have fewer than two different labels.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_match(2, train_features=train_features, train_labels=train_labels)
    labelled = train_labels != UNLABELLED
    x, y = train_features[labelled].cpu().numpy(), train_labels[labelled].cpu().numpy()
    if len(np.unique(y)) < 2:
        raise ValueError("train_labels hold fewer than two different labels; take more images")
    reduce = [] if n_components is None else [PCA(n_components, svd_solver="full")]
    # the few features that patches have suit Newton's method: the same weights, three times sooner
    classifier = LogisticRegression(class_weight="balanced", solver="newton-cg", max_iter=1000)
    probe = make_pipeline(*reduce, StandardScaler(), classifier).fit(x, y)
    found = probe.predict(features.flatten(0, 1).cpu().numpy())
    return torch.from_numpy(found).unflatten(0, features.shape[:2])


def cluster_patches(
    features: Float[Tensor, "b n c"],
    members: Bool[Tensor, "b n"],
    n_clusters: int,
    seed: int = 0,
) -> Int64[Tensor, "b n"]:
    """Clusters of the patches that are members, joint over the images; other patches have -1.

    By k-means, the best of four starts that `seed` settles. Raises ValueError where there are
    fewer members than clusters.
    """
    from sklearn.cluster import KMeans

    check_match(2, features=features, members=members)
    if members.sum() < n_clusters:
        raise ValueError(f"{int(members.sum())} patches do not make {n_clusters} clusters")
    means = KMeans(n_clusters, n_init=4, random_state=seed)
    clusters = torch.full(members.shape, UNLABELLED)
    found = means.fit_predict(features[members].cpu().numpy())
    clusters[members] = torch.from_numpy(found).to(clusters)
    return clusters


def balanced_accuracy(
    found: Int64[Tensor, "b n"], truth: Int64[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """The share of each label's patches that were found, averaged over an image's labels, [0, 1].

    Patches without a true label do not count; an image that has only such is NaN.
    """
    check_match(found=found, truth=truth)
    picture, patch = (truth != UNLABELLED).nonzero(as_tuple=True)
    label = truth[picture, patch]
    columns = {"image": picture, "label": label, "hit": found[picture, patch] == label}
    hits = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
    recall = hits.groupby(["image", "label"]).hit.mean()
    return torch.tensor(recall.groupby("image").mean().reindex(range(len(truth))).to_numpy())


def adjusted_rand(found: Int64[Tensor, "b n"], truth: Int64[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Agreement of two partitions of an image's patches, whatever their parts are called.

    The adjusted Rand index (Hubert and Arabie 1985): 1 for the same partition, 0 on average for
    chance. Patches without a true label do not count; an image with fewer than two labels, where
    there is nothing to tell apart, is NaN.
    """
    check_match(found=found, truth=truth)
    labels = F.one_hot(truth - UNLABELLED)[..., 1:].double()
    shared = F.one_hot(found - UNLABELLED).double().mT @ labels  # patches by cluster and label
    clusters, labels = shared.sum(2), shared.sum(1)
    both, one, other = (_pairs(count) for count in (shared.flatten(1), clusters, labels))
    expected = one * other / _pairs(labels.sum(1, keepdim=True)).clamp(min=1)
    reach = (one + other) / 2 - expected
    score = torch.where(reach == 0, 1.0, (both - expected) / reach)  # 0 where no two are together
    return score.where((labels > 0).sum(1) > 1, torch.nan)


def _pairs(counts: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """How many pairs of patches lie in one group, for groups of these sizes."""
    return (counts * (counts - 1) / 2).sum(1)
