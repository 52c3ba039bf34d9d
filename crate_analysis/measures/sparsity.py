"""Sparsity of token representations."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def nonzero_fraction(z: Float[Tensor, "b t d"]) -> Float[Tensor, " b"]:
    """Share of non-zero entries of each image's tokens, ||Z||_0 / (d t), in [0, 1].

    Lower is sparser. Exact zeros are counted, as ISTA's ReLU makes them (Yu et al. 2023, Fig. 4).
    Raises ValueError on NaN.
    """
    if z.isnan().any():
        raise ValueError("z holds NaN entries; look for the layer that made them")
    return (z != 0).float().mean((-2, -1))
