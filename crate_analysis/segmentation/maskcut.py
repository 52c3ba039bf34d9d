"""MaskCut: objects as repeated normalised cuts of an image's patches, without labels.

Wang et al. 2023 (arXiv 2301.11320), after TokenCut (Wang et al. 2022, arXiv 2202.11539). The public
code solves a dense generalised eigenproblem for each cut. Only one extreme eigenvector is needed,
so here it is found by Lanczos iterations on the normalised affinity; the affinity is computed once
an image, since a patch that is taken out only loses its row and column.
"""

from __future__ import annotations

import numpy as np
import scipy  # whose parts are imported when they are used
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

WEAK = 1e-5
"""The affinity of patches that are not alike: it keeps the graph in one piece."""
TOLERANCE = 1e-6
"""Of the eigenvalue, relative; at 1e-4 some patches near the split fall on the other side."""
CYCLE = 10
"""Lanczos vectors between two looks at convergence: most cuts need few more. ARPACK's own is 20."""
FEW = 64
"""Patches up to which the dense solver is as fast."""
LARGEST_OVERLAP = 0.5
SMALLEST_SHARE = 0.01


@torch.no_grad()
def maskcut(
    features: Float[Tensor, "n c"],
    grid: tuple[int, int],
    n_masks: int = 3,
    tau: float = 0.15,
) -> Bool[Tensor, "k gh gw"]:
    """Up to `n_masks` objects of one image, the most salient first, without a common patch.

    Each is one side of a normalised cut of the graph of patches, in which two patches are joined
    where the cosine of their features exceeds `tau`: the side of the entry of the eigenvector
    that is largest in absolute value, or the other one where that holds three or more of the
    grid's corners; of it, the part that is connected to its largest entry. Its patches are then
    taken out of the graph, and the rest is cut again. A mask after the first is dropped when it
    has IoU > 0.5 with the one before it, or covers no more than 1 % of the grid.

    Parameters
    ----------
    features : one image's `patch_features`, row by row of the grid. On a GPU the products with
        the affinity run there.
    tau : a cosine in [0, 1); the paper takes 0.15. The features' scale does not matter.

    Fewer masks than asked for, even none, are returned where there is nothing to cut (one patch,
    features that are all alike) or masks were dropped. Raises ValueError for NaN, a grid of
    another size, `n_masks` under 1 and `tau` outside [0, 1).
    """
    if n_masks < 1:
        raise ValueError(f"n_masks={n_masks} must be at least 1")
    if not 0 <= tau < 1:  # below 0, patches that were taken out would be joined to all others
        raise ValueError(f"tau={tau} must be a cosine in [0, 1)")
    if grid[0] * grid[1] != len(features):
        raise ValueError(f"{len(features)} features do not fill a grid of {grid[0]} x {grid[1]}")
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinite entries; look for the layer that made them")
    graph = _Graph(features, tau)
    taken = np.zeros(grid, bool)
    before = np.zeros(grid, bool)
    masks = []
    for number in range(n_masks):
        vector = graph.second_eigenvector()
        if vector is None:
            break
        mask = _salient_side(vector.reshape(grid))
        if number and (_iou(mask, before) > LARGEST_OVERLAP or mask.mean() <= SMALLEST_SHARE):
            before = np.zeros(grid, bool)
            continue
        before = mask
        if (mask & ~taken).any():
            masks.append(torch.from_numpy(mask & ~taken))
        taken |= mask
        graph.take_out(mask.ravel())
    return torch.stack(masks) if masks else torch.zeros(0, *grid, dtype=torch.bool)


class _Graph:
    """An image's patches, joined where they are alike."""

    def __init__(self, features: Float[Tensor, "n c"], tau: float) -> None:
        # by the largest entry first: the squares of 1e30 have no place in single precision
        largest = features.abs().amax(1, keepdim=True)
        unit = F.normalize((features / largest.where(largest > 0, 1)).float(), dim=1)
        if unit.device.type == "cpu":  # NumPy halves the work of a product with its own transpose
            cosines = torch.from_numpy(unit.numpy() @ unit.numpy().T)
        else:
            cosines = unit @ unit.T
        self._joined = cosines.gt_(tau)  # 0 or 1, in place: the matrix is large
        self._left = torch.ones(len(unit), device=unit.device)
        self._vector: NDArray[np.float32] | None = None

    def take_out(self, patches: NDArray[np.bool_]) -> None:
        """Joins these patches to no other, nor to themselves, but weakly."""
        self._left[torch.from_numpy(patches).to(self._left.device)] = 0
        self._vector = None

    def second_eigenvector(self) -> NDArray[np.float32] | None:
        """Of the normalised cut, (D - A) y = m D y, to the second smallest m.

        None where no split hangs together better than any other.
        """
        if self._vector is None:
            value, self._vector = self._solve()
            if value < WEAK:
                self._vector = None
        return self._vector

    def _solve(self) -> tuple[float, NDArray[np.float32]]:
        """1 - m, the second largest eigenvalue of D^-1/2 A D^-1/2, and y."""
        n = len(self._left)
        degree = self._times(np.ones(n, np.float32))
        root: NDArray[np.float32] = np.sqrt(degree)
        top = root / np.linalg.norm(root)  # the vector of the largest one is known

        def without_top(x: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(self._times(x / root) / root - top * (top @ x), np.float32)

        if n > FEW:
            solvers = scipy.sparse.linalg
            operator = solvers.LinearOperator((n, n), matvec=without_top, dtype=np.float32)
            start = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
            try:
                values, vectors = solvers.eigsh(
                    operator, k=1, which="LA", v0=start, ncv=CYCLE, tol=TOLERANCE
                )
                return float(values[0]), vectors[:, 0] / root
            except solvers.ArpackError:  # not converged
                pass
        return self._solve_dense(degree)

    def _solve_dense(self, degree: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        if len(degree) < 2:
            return 0.0, degree
        weights = self._left[:, None] * self._joined * self._left
        affinity = np.where(weights.cpu().numpy() > 0, 1.0, WEAK)
        diagonal = np.diag(affinity.sum(1))
        values, vectors = scipy.linalg.eigh(diagonal - affinity, diagonal, subset_by_index=[1, 1])
        return 1 - float(values[0]), vectors[:, 0].astype(np.float32)

    def _times(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """A x."""
        given = torch.from_numpy(x).to(self._left.device)
        strong = self._left * (self._joined @ (self._left * given))
        return (WEAK * given.sum() + (1 - WEAK) * strong).cpu().numpy()


def _salient_side(vector: NDArray[np.float32]) -> NDArray[np.bool_]:
    side = vector > vector.mean()
    if not side.ravel()[np.abs(vector).argmax()]:
        side, vector = ~side, -vector
    if side[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= 3:  # an object seldom fills the corners
        side, vector = ~side, -vector
    pieces, _ = scipy.ndimage.label(side)
    return pieces == pieces.ravel()[vector.argmax()]


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)
