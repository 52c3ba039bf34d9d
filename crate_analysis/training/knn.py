"""How well features tell classes apart before anything is trained on them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07


def knn_accuracy(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    queries: Float[Tensor, "q d"],
    truth: Int64[Tensor, " q"],
    neighbours: int = NEIGHBOURS,
) -> float:
    """Share of queries that the vote of `knn_hits` names rightly, in [0, 1]."""
    return float(knn_hits(features, labels, queries, truth, neighbours).double().mean())


def knn_hits(
    features: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    queries: Float[Tensor, "q d"],
    truth: Int64[Tensor, " q"],
    neighbours: int = NEIGHBOURS,
) -> Bool[Tensor, " q"]:
    """Which queries the weighted vote of their nearest features names rightly.

    Each of the `neighbours` features of the greatest cosine similarity s votes for its label with
    weight exp(s / 0.07), as in Wu et al. 2018 (arXiv 1805.01978, Eq. 7) and Caron et al. 2021.
    Raises ValueError where there are fewer features than `neighbours`.
    """
    if len(features) < neighbours:
        raise ValueError(f"{len(features)} features have no {neighbours} nearest; give more")
    classifier = KNeighborsClassifier(
        neighbours,
        weights=lambda distances: np.exp(-distances / TEMPERATURE),  # 1 - s: e^(1/0.07) cancels
        metric="cosine",
        algorithm="brute",
    )
    classifier.fit(features.numpy(), labels.numpy())
    return torch.from_numpy(classifier.predict(queries.numpy())) == truth
