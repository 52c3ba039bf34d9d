"""Sparsity of token representations."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def nonzero_fraction(z: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """Share of non-zero entries of each image's tokens, ||Z||_0 / (d t), in [0, 1].

    Lower is sparser. Exact zeros are counted, as ISTA's ReLU makes them (Yu et al. 2023, Fig. 4).
    Raises ValueError on NaN (or on infinities of both signs).
    """
    if z.sum((-2, -1)).isnan().any():  # a sum meets every NaN, in one pass and without a mask
        raise ValueError("z holds NaN entries; look for the layer that made them")
    return z.count_nonzero(dim=(-2, -1)) / (z.shape[-2] * z.shape[-1])
