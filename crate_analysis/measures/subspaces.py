"""The subspaces that attention compresses into: how they lie to each other, how full they are.

Yu et al. 2023 (arXiv 2306.01129), Sec. 2.1-2.3, derive a layer for orthonormal bases U_k of
subspaces that are incoherent: near orthogonal to each other. A trained layer has what it learnt.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.models import UnrolledModel


def principal_cosines(subspaces: Float[Tensor, "h d p"]) -> Float[Tensor, "h h p"]:
    """Cosines of the p principal angles between the spans of each two bases, largest first.

    The singular values of Q_k^T Q_j, where Q_k is an orthonormal basis of the span of U_k (Björck
    & Golub 1973), in [0, 1]: all 1 for equal spans, all 0 for orthogonal ones. A direction that a
    basis lacks, because its columns depend on each other, is at a right angle to everything.
    """
    bases, values, _ = torch.linalg.svd(subspaces, full_matrices=False)
    smallest = values[:, :1] * max(subspaces.shape[1:]) * torch.finfo(values.dtype).eps
    bases = bases * (values > smallest).unsqueeze(1)
    products = bases.mT.unsqueeze(1) @ bases.unsqueeze(0)  # h h p p
    return torch.linalg.svdvals(products).clamp(max=1)


def subspace_coherence(subspaces: Float[Tensor, "h d p"]) -> Float[Tensor, "h h"]:
    """The largest cosine between a vector of one span and one of the other, in [0, 1].

    The largest of `principal_cosines`: 1 as soon as two spans share one direction. It is near 1 for
    large random subspaces too, so compare it with theirs.
    """
    return principal_cosines(subspaces)[..., 0]


def subspace_overlap(subspaces: Float[Tensor, "h d p"]) -> Float[Tensor, "h h"]:
    """How much of one span lies in the other: ||Q_k^T Q_j||_F^2 / p, in [0, 1].

    The mean squared cosine of `principal_cosines`: 1 for equal spans, 0 for orthogonal ones, and
    p/d on average for random subspaces.
    """
    return principal_cosines(subspaces).square().mean(-1)


def subspace_frame(model: UnrolledModel) -> pd.DataFrame:
    """Every pair of a network's subspaces, layer by layer: what its weights alone say.

    Returns a row for each ordered pair of heads: layer, head and other (from 0), overlap
    (`subspace_overlap`; NaN for a head with itself) and dimension, the `effective_dimension` of the
    basis of `head`. A ViT's subspaces are those of its keys.

    >>> from crate_analysis import load_model
    >>> frame = subspace_frame(load_model("crate-creatures"))
    >>> len(frame) == 6 * 4 * 4, bool(frame.overlap.dropna().between(0, 1).all())
    (True, True)
    """
    frames = []
    for layer, step in enumerate(model.layers):
        bases = step.subspaces().detach()
        overlap = subspace_overlap(bases).cpu().double().numpy()
        np.fill_diagonal(overlap, np.nan)
        head, other = np.indices(overlap.shape).reshape(2, -1)
        dimension = effective_dimension(bases).cpu().numpy()[head]
        rows = {"layer": layer, "head": head, "other": other}
        frames.append(pd.DataFrame({**rows, "overlap": overlap.ravel(), "dimension": dimension}))
    return pd.concat(frames, ignore_index=True)


def effective_dimension(z: Float[Tensor, "*batch n p"]) -> Float[Tensor, "*batch"]:
    """How many directions the rows of a matrix use evenly: the participation ratio, in [1, p].

    (sum_i s_i^2)^2 / sum_i s_i^4 of its singular values s: p when they are equal, 1 when only one
    is not zero. Of `state.subspaces` it is that of each basis; p then means orthonormal up to one
    factor, and Gaussian entries give p / (1 + p/d) on average. Raises ValueError for a matrix of
    zeros or with NaN or infinite entries.
    """
    gram = _gram(z)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / gram.square().sum((-2, -1))


def token_dimension(projections: Float[Tensor, "b h t p"]) -> Float[Tensor, "b h"]:
    """Effective dimension of the tokens as each subspace sees them, one an image and subspace.

    The participation ratio of the covariance of U_k^T LN(Z) over the t tokens (`[CLS]` among them),
    in [1, p]. Raises ValueError where all tokens of an image are equal.
    """
    return effective_dimension(projections - projections.mean(-2, keepdim=True))


def orthogonality_gap(matrix: Float[Tensor, "*batch n p"]) -> Float[Tensor, "*batch"]:
    """How far the columns are from orthogonal and of one length, min_s ||M^T M - s I|| / ||M^T M||.

    Frobenius norms; in [0, 1): 0 for orthonormal columns times any factor, (1 - 1/p)^(1/2) at
    rank 1. The best s is the columns' mean squared length. Equal to (1 - r/p)^(1/2) with r the
    `effective_dimension`, and with its errors; for Gaussian entries r is p / (1 + p/n) on average,
    which gives 0.71 for a square matrix.
    """
    gram = _gram(matrix)
    size = gram.norm(dim=(-2, -1))
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    gram.diagonal(dim1=-2, dim2=-1).sub_(scale.unsqueeze(-1))
    return gram.norm(dim=(-2, -1)) / size


def _gram(matrix: Tensor) -> Tensor:
    """M^T M, for a matrix that has directions."""
    if not torch.isfinite(matrix).all():
        raise ValueError("the matrix holds NaN or infinite entries; look for what made them")
    if (matrix == 0).all(-1).all(-1).any():
        raise ValueError("a matrix of zeros has no directions: its tokens are equal, or it is dead")
    return matrix.mT @ matrix
