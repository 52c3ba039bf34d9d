"""Coding rates: how many nats a set of tokens costs, up to a precision.

Yu et al. 2020 (arXiv 2006.08558); Yu et al. 2023 (arXiv 2306.01129), Eq. 6-7. A token set in few
directions costs little; compression is a falling rate.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def coding_rate(
    z: Float[Tensor, "b h t p"], eps2: float = 0.01, normalize: bool = True
) -> Float[Tensor, " b"]:
    """R^c(Z | U_[K]): the rate of tokens coded separately in each of h subspaces, one per image.

    sum over h of 1/2 logdet(I + p / (t eps2) Z_h Z_h^T), in nats, >= 0.

    Parameters
    ----------
    z : tokens as each subspace sees them, U_k^T Z: `state.projections`, where the released code
        measures it, or `state.project(state.half)`, where the paper places it.
    eps2 : the precision eps *squared* (the released code calls this number eps).
    normalize : scale each token to unit length first, as the released code does.

    Computed from the smaller of the two Gram matrices (t x t, p x p; both give the same value) by
    a Cholesky factorisation in float64. Raises ValueError for eps2 <= 0, NaN or infinity, and,
    with `normalize`, a token of length zero.
    """
    if not eps2 > 0:
        raise ValueError(f"eps2={eps2} must be more than 0; it is the squared precision")
    tokens, dim = z.shape[-2:]
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    squared = z.square().sum(-1)
    if not torch.isfinite(squared).all():
        raise ValueError("z holds NaN or infinite entries; look for the layer that made them")
    if normalize:
        if (squared == 0).any():
            raise ValueError(
                "z holds a token of length zero, which cannot be scaled to unit length; "
                "drop it or pass normalize=False"
            )
        # heads may lie side by side in memory, where products of matrices are slower
        z = (z * squared.rsqrt().unsqueeze(-1)).contiguous()
    gram = z.mT @ z if dim <= tokens else z @ z.mT
    scaled = gram.double() * (dim / (tokens * eps2))
    scaled.diagonal(dim1=-2, dim2=-1).add_(1)
    # logdet = 2 sum log diag(L), so half of it is the sum of the logs
    factor = torch.linalg.cholesky(scaled)
    return factor.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1)).to(z.dtype)


def total_coding_rate(
    z: Float[Tensor, "b t d"], eps2: float = 0.01, normalize: bool = True
) -> Float[Tensor, " b"]:
    """R(Z): the rate of all tokens coded together, one value an image, in nats.

    1/2 logdet(I + d / (t eps2) Z Z^T): `coding_rate` with the whole space as the one subspace,
    with the same arguments and errors.
    """
    return coding_rate(z.unsqueeze(1), eps2, normalize)


def rate_reduction(
    z: Float[Tensor, "b t d"], subspaces: Float[Tensor, "h d p"], eps2: float = 0.01
) -> Float[Tensor, " b"]:
    """R(Z) - R^c(Z | U_[K]), the objective without its sparsity, one value an image, in nats.

    Both rates see the same tokens on one scale: each of unit length, projected by U_k as it is
    (Yu et al. 2023, Eq. 1). `coding_rate(state.projections)`, as the released code measures it,
    scales each projection anew, so that its difference from R is no value of the objective.
    Arguments and errors as for `coding_rate`.

    >>> z = torch.eye(4)[None]
    >>> bool(rate_reduction(z, torch.eye(4)[None]).abs() < 1e-5)  # one subspace: the whole space
    True
    """
    unit = torch.nn.functional.normalize(z, dim=-1)
    projections = torch.einsum("hdp,btd->bhtp", subspaces, unit)
    return total_coding_rate(z, eps2) - coding_rate(projections, eps2, normalize=False)
