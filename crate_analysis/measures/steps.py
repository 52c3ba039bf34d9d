"""Does a layer move its tokens as its derivation says: steps, gradients and the angle between them.

Yu et al. 2023 (arXiv 2306.01129), Sec. 2.3, derive attention as a step down the gradient of
R^c(Z | U_[K]). Steps and gradients are (b,t,d): all tokens of an image together, `[CLS]` included,
are one vector of t d numbers. A random direction there has a cosine with any other of mean 0 and
standard deviation (t d)^(-1/2); `turned_cosine` is the fairer level for a step of attention.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.checks import check_match
from crate_analysis.measures.coding_rate import coding_rate
from crate_analysis.models import LayerState


def cosine(a: Float[Tensor, "b t d"], b: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """Cosine of the angle between two steps, in [-1, 1], one an image.

    Raises ValueError where a step is zero or not finite: it has no direction.
    """
    check_match(a=a, b=b)
    return ((a * b).sum((-2, -1)) / (_length(a) * _length(b))).clamp(-1, 1)


def turned_cosine(
    step: Float[Tensor, "b t d"], direction: Float[Tensor, "b t d"]
) -> Float[Tensor, " b"]:
    """The root mean square of the cosine, had the step been turned at random, in [0, 1].

    ||S^T G||_F / (d^(1/2) ||S|| ||G||) for S -> S Q with Q a random rotation of the d coordinates,
    the same for all tokens: chance level for a step that keeps what it does from token to token
    but leaves the subspaces by an arbitrary output map. Errors as `cosine`.
    """
    check_match(step=step, direction=direction)
    overlap = (step.mT @ direction).norm(dim=(-2, -1))
    return overlap / (step.shape[-1] ** 0.5 * _length(step) * _length(direction))


def turned(step: Float[Tensor, "b t d"], seed: int = 0) -> Float[Tensor, "b t d"]:
    """The step with all its tokens turned by one random rotation, which `seed` settles.

    The control of a direction: as long, and as alike from token to token, but pointing anywhere.

    >>> step = torch.randn(2, 5, 8)
    >>> torch.allclose(turned(step).norm(dim=-1), step.norm(dim=-1), atol=1e-5)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(step.shape[-1], step.shape[-1], generator=generator, dtype=torch.float64)
    rotation, upper = torch.linalg.qr(square)
    return step @ (rotation * upper.diagonal().sign()).to(step)  # evenly over all rotations


def with_length_of(
    step: Float[Tensor, "b t d"], other: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """A step in its own direction, in each image as long as the other one. Errors as `cosine`."""
    check_match(1, step=step, other=other)
    return step * (_length(other) / _length(step))[:, None, None]


def random_step(step: Float[Tensor, "b t d"], seed: int = 0) -> Float[Tensor, "b t d"]:
    """A step in a direction drawn at random, in each image as long as the one given.

    The control of what any step of that length does: each of the t d numbers is Gaussian, and the
    whole is scaled. The same for an image whatever batch it comes in only where batches are the
    same; average over seeds. Errors as `cosine`.

    >>> random_step(torch.ones(1, 2, 2)).norm()
    tensor(2.)
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(step.shape, generator=generator, dtype=torch.float32).to(step)
    return with_length_of(drawn, step)


def common_share(step: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """How much of a step all tokens take alike, t ||mean_i s_i||^2 / ||S||^2, in [0, 1].

    1 where every token moves by the same vector; 1/t on average for independent moves. Errors as
    `cosine`.
    """
    return step.shape[1] * step.mean(1).square().sum(-1) / _length(step).square()


def lift(subspaces: Float[Tensor, "h d p"], z: Float[Tensor, "b h t p"]) -> Float[Tensor, "b t d"]:
    """Back from the subspaces to tokens as the derivation has it, sum_k U_k z_k.

    Of ``state.attention(slice(None)) @ state.projections`` it is MSSA's step with U_k in place of
    the output map that the released code leaves free.
    """
    return torch.einsum("hdp,bhtp->btd", subspaces, z)


def derived_gradient(
    subspaces: Float[Tensor, "h d p"], projections: Float[Tensor, "b h t p"], eps2: float = 0.01
) -> Float[Tensor, "b t d"]:
    """The gradient of R^c(Z | U_[K]) in Z that the derivation starts from, in closed form.

    sum_k c U_k V_k (I + c V_k^T V_k)^-1 with c = p / (t eps2) and V_k = U_k^T Z (Yu et al. 2023,
    Sec. 2.3), at the Z that `projections` are of: for `state.projections`, the normalised tokens.
    The rate is `coding_rate(projections, eps2, normalize=False)`: no token is scaled to unit
    length. Raises ValueError for eps2 <= 0.
    """
    if not eps2 > 0:
        raise ValueError(f"eps2={eps2} must be more than 0; it is the squared precision")
    tokens, dim = projections.shape[-2:]
    scale = dim / (tokens * eps2)
    # tokens are rows here, so that V (I + c V^T V)^-1 has its inverse on the p x p side
    precision = (projections.mT @ projections).double() * scale
    precision.diagonal(dim1=-2, dim2=-1).add_(1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return lift(subspaces, projections @ (scale * inverse).to(projections.dtype))


def measured_gradient(state: LayerState, eps2: float = 0.01) -> Float[Tensor, "b t d"]:
    """The gradient, in the layer's un-normalised tokens, of the rate that is measured.

    That of `coding_rate(state.project(tokens), eps2)`: through LayerNorm, the subspaces and the
    scaling to unit length, so that it is blind to a token's length (but for LayerNorm's small
    constant). By automatic differentiation, also where gradients are switched off, as in
    `measure_layers`; the weights get none. Errors as `coding_rate`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        tokens = state.tokens.detach().clone().requires_grad_()
        rate = coding_rate(state.project(tokens), eps2)
        (gradient,) = torch.autograd.grad(rate.sum(), tokens)
    return gradient


def rate_change(
    state: LayerState, step: Float[Tensor, "b t d"], eps2: float = 0.01
) -> Float[Tensor, " b"]:
    """What a step of the tokens does to the measured rate in the layer's own subspaces, in nats.

    `coding_rate` of `state.project(state.tokens + step)` less that of `state.projections`; below
    zero the step compresses. With the errors of `coding_rate`.
    """
    after = coding_rate(state.project(state.tokens + step), eps2)
    return after - coding_rate(state.projections, eps2)


def _length(step: Tensor) -> Tensor:
    """The Frobenius norm, one an image, of a step that has a direction."""
    length = step.norm(dim=(-2, -1))
    if not (torch.isfinite(length) & (length > 0)).all():
        raise ValueError("the step of an image is zero, NaN or infinite, and has no direction")
    return length
