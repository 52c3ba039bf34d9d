"""SimDINO: self-distillation whose features a coding rate keeps apart (Wu et al. 2025).

In place of DINO's prototypes, centring and sharpening ("Simplifying DINO via Coding Rate
Regularization", arXiv 2502.10385): student and teacher are to agree on views of the same image,
while the features of a batch are to take up as much room as they can, by the coding rate that
CRATE's layers are made to lower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.models import UnrolledModel
from crate_analysis.training.distillation import (
    Bottleneck,
    DistillationRecipe,
    SelfDistillation,
    distill,
    report,
)
from crate_analysis.training.images import CachedImages
from crate_analysis.training.loop import Execution, Part


@dataclass(frozen=True)
class SimDinoRecipe(DistillationRecipe):
    """SimDINO's recipe, scaled down: the values of its public code where none stands here.

    With few images, take small batches: those of 16 learn in an epoch of 20,000 images what those
    of 64 are far from. `params/experiments/self-supervision.yml` has the settings of our networks.
    """

    objective = "simdino"

    bottleneck_dim: int = 64
    """p, dimension of the features. Public code: 256, in batches of 1,024."""
    momentum: float = 0.996
    epsilon: float = 0.5
    """Distortion of the coding rate."""
    rate_weight: float = 0.0
    """gamma, of the coding rate; 0 for the public code's (p + m) / (p m), m images a batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon > 0:
            raise ValueError(f"epsilon={self.epsilon} must be more than 0")
        if not self.rate_weight >= 0:
            raise ValueError(f"rate_weight={self.rate_weight} must be at least 0")

    @property
    def gamma(self) -> float:
        """What the coding rate is multiplied by."""
        p, m = self.bottleneck_dim, self.batch_size
        return self.rate_weight or (p + m) / (p * m)


def alignment(
    teacher: Float[Tensor, "g b p"], student: Float[Tensor, "v b p"]
) -> Float[Tensor, ""]:
    """Mean cosine of the teacher's views with the student's other views, features of unit length.

    The first g of the student's v views are those that the teacher saw.
    """
    pairs = torch.einsum("gbp,vbp->gv", teacher, student) / teacher.shape[1]
    different = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[different].mean()


def expansion(features: Float[Tensor, "m p"], epsilon: float) -> Float[Tensor, ""]:
    """R(Z) = 1/2 log det(I + p / (m epsilon) Z^T Z), nats, of m features a row each.

    The determinant is that of the smaller Gram matrix, which has the same one.

    >>> expansion(torch.eye(2), epsilon=0.5).item()  # 1/2 log det(3 I) = log 3
    1.0986123085021973
    """
    m, p = features.shape
    gram = features.T @ features if p <= m else features @ features.T
    scaled = p / (m * epsilon) * gram
    return torch.linalg.slogdet(scaled + torch.eye(len(gram), device=gram.device)).logabsdet / 2


class SimDino(SelfDistillation):
    """Self-distillation by alignment, less `gamma` times the coding rate of the features.

    The rate is that of each global view's features, the mean of student's and teacher's, averaged
    over the two views. The log has `alignment`, at most 1, and `coding_rate`, nats: where all
    features are alike the first is 1 and the second that of one direction, and the network has
    collapsed.
    """

    metrics = ("alignment", "coding_rate")
    recipe: SimDinoRecipe

    def __init__(
        self,
        backbone: UnrolledModel,
        recipe: SimDinoRecipe,
        data: CachedImages,
        held_out: CachedImages,
        partners: CachedImages | None = None,
    ) -> None:
        head = Bottleneck(backbone.config.dim, recipe.hidden_dim, recipe.bottleneck_dim)
        super().__init__(backbone, head, recipe, data, held_out, partners)

    def score(
        self, teacher: Float[Tensor, "2 b k"], student: Float[Tensor, "v b k"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """-alignment - gamma x coding rate, and the two.

        Raises ValueError for a part of a batch: the rate is one of all its images.
        """
        if part.stop - part.start != self.recipe.batch_size:
            raise ValueError(
                "SimDINO's coding rate is that of a whole batch: train with --accumulate 1 and "
                "in one process"
            )
        aligned = alignment(teacher, student)
        means = (student[: len(teacher)] + teacher) / 2
        rates = torch.stack([expansion(view, self.recipe.epsilon) for view in means])
        loss = -aligned - self.recipe.gamma * rates.mean()
        return loss, torch.stack([aligned.detach(), rates.detach().mean()])


def train(
    recipe: SimDinoRecipe, folder: Path, cache: Path, execution: Execution | None = None
) -> UnrolledModel:
    """Train a backbone without labels by `loop.run`; see `dino.train`."""
    return distill(SimDino, recipe, folder, cache, execution)


__all__ = ["SimDino", "SimDinoRecipe", "alignment", "expansion", "report", "train"]
