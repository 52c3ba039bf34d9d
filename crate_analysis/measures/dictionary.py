"""The dictionary that ISTA codes tokens in, and the objective its step is derived from.

Yu et al. 2023 (arXiv 2306.01129), Sec. 2.4. Axis letters: b images, t tokens, d embedding, n atoms
(n = d in CRATE, 4 d in CRATE-alpha).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.measures.subspaces import orthogonality_gap
from crate_analysis.models import LayerState, UnrolledModel


def atom_cosines(dictionary: Float[Tensor, "d n"]) -> Float[Tensor, " pairs"]:
    """|cos| of the angle between each two atoms (columns), n (n - 1) / 2 values in [0, 1].

    Their largest is the *mutual coherence*: 0 for orthogonal atoms, 1 where two atoms lie on one
    line. With n > d atoms it is at least ((n - d) / (d (n - 1)))^(1/2) (Welch 1974); CRATE's n = d
    atoms may be orthogonal, and the bound is 0. The mean for independent Gaussian atoms is near
    (2 / (pi d))^(1/2). Raises ValueError for an atom of zeros and for fewer than two atoms.
    """
    count = dictionary.shape[1]
    if count < 2:
        raise ValueError(f"the dictionary has {count} atom (column), but a pair needs two")
    lengths = dictionary.norm(dim=0)
    if (lengths == 0).any():
        dead = int((lengths == 0).nonzero()[0, 0])
        raise ValueError(f"atom {dead} of the dictionary is zero and has no direction; drop it")
    atoms = dictionary / lengths
    above = torch.ones(count, count, dtype=torch.bool, device=atoms.device).triu(1)
    return (atoms.mT @ atoms)[above].abs().clamp(max=1)


def step_strength(dictionary: Float[Tensor, "d n"], step_size: float) -> Float[Tensor, ""]:
    """The step size in units of the objective's curvature, eta ||D||^2 (spectral norm), >= 0.

    Up to 2 a proximal gradient step from a permitted code cannot raise the objective; more may
    overshoot (Beck & Teboulle 2009).
    """
    return step_size * torch.linalg.matrix_norm(dictionary, 2).square()


def lasso_objective(
    codes: Float[Tensor, "b t n"],
    tokens: Float[Tensor, "b t d"],
    dictionary: Float[Tensor, "d n"],
    sparsity: float,
) -> Float[Tensor, " b"]:
    """1/2 ||z - D a||^2 + sparsity ||a||_1, mean over an image's tokens z and their codes a.

    With sparsity 0 the first term alone. Raises ValueError for a sparsity below 0.
    """
    if not sparsity >= 0:
        raise ValueError(f"sparsity={sparsity} must be 0 or more; it weighs the length of the code")
    misfit = (tokens - codes @ dictionary.mT).square().sum(-1) / 2
    return (misfit + sparsity * codes.abs().sum(-1)).mean(-1)


def coding_objective(state: LayerState, codes: Float[Tensor, "b t n"]) -> Float[Tensor, " b"]:
    """What a layer's ISTA step is derived to lower, at codes of the tokens that it sees, per token.

    The `lasso_objective` of `state.normed_half`; the layer goes from the codes
    `state.initial_codes` to the codes `state.codes`. Raises ValueError in a layer without a
    dictionary.
    """
    dictionary, _, sparsity = state.sparse_coding
    return lasso_objective(codes, state.normed_half, dictionary, sparsity)


class WeightChange(NamedTuple):
    """How far a matrix lies from its first values."""

    relative: float
    """||W - W_0|| / ||W_0||, Frobenius norms, from 0."""
    cosine: float
    """Of the angle between W and W_0 as vectors, in [-1, 1]: 1 where training only scaled it."""


def dictionary_change(trained: Float[Tensor, "d n"], initial: Float[Tensor, "d n"]) -> WeightChange:
    """How far training moved a dictionary from its first values, of which it may be a noisy copy.

    Statements on a trained dictionary that is close to its random start (a cosine near 1) are
    statements on a random matrix. Raises ValueError for matrices of differing shape and for one of
    zeros.

    >>> dictionary_change(torch.eye(4) * 2, torch.eye(4))
    WeightChange(relative=1.0, cosine=1.0)
    """
    if trained.shape != initial.shape:
        raise ValueError(
            f"the dictionaries are {tuple(trained.shape)} and {tuple(initial.shape)}: take both "
            "from one architecture and layer"
        )
    now, before = trained.detach().double(), initial.detach().double()
    lengths = now.norm(), before.norm()
    if not all(length > 0 for length in lengths):
        raise ValueError("a dictionary of zeros has no direction to compare")
    cosine = (now * before).sum() / (lengths[0] * lengths[1])
    return WeightChange(float((now - before).norm() / lengths[1]), float(cosine.clamp(-1, 1)))


def dictionary_frame(model: UnrolledModel, first: UnrolledModel | None = None) -> pd.DataFrame:
    """What the dictionaries of a network's layers say by themselves, and beside their first values.

    Parameters
    ----------
    first : the same network before training; without it `change` and `cosine` are NaN.

    Returns a row for each layer (from 0) and singular value: rank (from 1), value; and for the
    layer mean_cosine and largest_cosine (`atom_cosines`), gap (`orthogonality_gap`), strength
    (`step_strength`), change and cosine (`dictionary_change`). Raises ValueError for a network
    without dictionaries.

    >>> from crate_analysis import load_model
    >>> frame = dictionary_frame(load_model("crate-creatures"))
    >>> frame.layer.nunique(), int(frame["rank"].max())
    (6, 128)
    """
    frames = []
    for index, layer in enumerate(model.layers):
        dictionary, step_size, _ = layer.sparse_coding()
        dictionary = dictionary.detach().cpu().float()
        moved = WeightChange(math.nan, math.nan)
        if first is not None:
            start = first.layers[index].sparse_coding().dictionary.detach().cpu().float()
            moved = dictionary_change(dictionary, start)
        cosines = atom_cosines(dictionary)
        values = torch.linalg.svdvals(dictionary).numpy()
        row = {
            "layer": index,
            "mean_cosine": cosines.mean().item(),
            "largest_cosine": cosines.max().item(),
            "gap": orthogonality_gap(dictionary).item(),
            "strength": step_strength(dictionary, step_size).item(),
            "change": moved.relative,
            "cosine": moved.cosine,
        }
        frames.append(pd.DataFrame({**row, "rank": np.arange(1, len(values) + 1), "value": values}))
    return pd.concat(frames, ignore_index=True)
