"""DINO: self-distillation without labels (Caron et al. 2021, arXiv 2104.14294), for any backbone.

A student learns to give the answer of its own moving average, the teacher, on another crop of the
same image. Written after the paper's Algorithm 1 and its appendix; the backbone may be a ViT, as
there, or CRATE.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crate_analysis.distributed import sum_over_processes
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
class DinoRecipe(DistillationRecipe):
    """DINO's recipe, scaled down; the paper's values stand with the fields where ours differ.

    In runs of a few hundred steps the paper's temperatures and centre end in one answer to all
    images: the teacher's outputs drift faster than a centre of momentum 0.9 follows. In
    batches of 16 the paper's values are better, with its momentum of the teacher (0.996):
    `params/experiments/self-supervision.yml` has the settings and what others gave.
    """

    objective = "dino"

    out_dim: int = 512
    """K, outputs of the projection head. Paper: 65,536."""
    student_temperature: float = 0.1
    teacher_temperature: float = 0.03
    """Paper: 0.04 at first, then 0.07."""
    first_teacher_temperature: float = 0.03
    teacher_warmup: float = 0.3
    """Share of the steps over which the teacher's temperature goes from the first to the last."""
    center_momentum: float = 0.5
    """Paper: 0.9."""
    frozen: float = 0.02
    """Share of the steps, at the start, in which the head's last layer is not trained. Paper: the
    first of 100 or more epochs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out_dim < 2:
            raise ValueError(f"out_dim={self.out_dim} must be at least 2")
        for name in ("student_temperature", "teacher_temperature", "first_teacher_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be more than 0")
        for name in ("teacher_warmup", "frozen", "center_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1]")

    def teacher_temperature_at(self, step: int) -> float:
        """In a line up to `teacher_warmup`, then constant: sharp answers early risk collapse."""
        warmup = self.teacher_warmup * self.steps
        done = min(1.0, step / warmup) if warmup else 1.0
        rise = self.teacher_temperature - self.first_teacher_temperature
        return self.first_teacher_temperature + done * rise


class ProjectionHead(Bottleneck):
    """A bottleneck, then its cosine similarities to `out_dim` learned directions.

    The paper's weight-normalised last layer with its gain fixed to 1 is this very similarity.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, out_dim: int) -> None:
        super().__init__(dim, hidden, bottleneck)
        self.last_layer = nn.Linear(bottleneck, out_dim, bias=False)

    def forward(self, features: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes k"]:
        """Similarities in [-1, 1], in float32."""
        projected = super().forward(features)
        with torch.autocast(projected.device.type, enabled=False):
            # temperatures magnify what half precision would round off here
            return F.linear(projected, F.normalize(self.last_layer.weight, dim=-1))


def distillation_loss(
    teacher: Float[Tensor, "g b k"], student: Float[Tensor, "v b k"]
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) of the student's answers under the teacher's, as in Eq. 3 of the paper.

    `teacher` holds probabilities and `student` their logarithms; the first g of the student's v
    views are those that the teacher saw. The mean over images and over pairs of different views.
    """
    pairs = -torch.einsum("gbk,vbk->gv", teacher, student) / teacher.shape[1]
    different = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[different].mean()


class Dino(SelfDistillation):
    """Self-distillation by cross-entropy over learned directions.

    The log has the teacher's entropy (nats, of each answer, at most log K) and its divergence from
    the student, KL(teacher || student): the loss is their sum. Where the teacher gives the same
    answer to all images the divergence goes to 0, with entropy log K or 0: it has collapsed.
    """

    metrics = ("teacher_entropy", "divergence")
    recipe: DinoRecipe

    def __init__(
        self,
        backbone: UnrolledModel,
        recipe: DinoRecipe,
        data: CachedImages,
        held_out: CachedImages,
        partners: CachedImages | None = None,
    ) -> None:
        head = ProjectionHead(
            backbone.config.dim, recipe.hidden_dim, recipe.bottleneck_dim, recipe.out_dim
        )
        super().__init__(backbone, head, recipe, data, held_out, partners)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(recipe.out_dim))
        self._batch_mean: Tensor
        self.register_buffer("_batch_mean", torch.zeros(recipe.out_dim), persistent=False)

    def score(
        self, teacher: Float[Tensor, "2 b k"], student: Float[Tensor, "v b k"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """The cross-entropy, the teacher's entropy, and their difference."""
        recipe = self.recipe
        log_student = (student / recipe.student_temperature).log_softmax(-1)
        self._batch_mean += teacher.mean(0).sum(0) / recipe.batch_size
        sharpened = (teacher - self.center) / recipe.teacher_temperature_at(part.step)
        probabilities = sharpened.softmax(-1)
        loss = distillation_loss(probabilities, log_student)
        entropy = -(probabilities * sharpened.log_softmax(-1)).sum(-1).mean()
        return loss, torch.stack([entropy, loss.detach() - entropy])

    def before_update(self, step: int) -> None:
        """Without the last layer's gradient at the start, and cut to `clip`."""
        head = self.student.head
        if step < self.recipe.frozen * self.recipe.steps and isinstance(head, ProjectionHead):
            head.last_layer.weight.grad = None
        super().before_update(step)

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """The teacher moves towards the student, and the centre towards the batch's mean output."""
        super().after_update(step)
        batch_mean = sum_over_processes(self._batch_mean)
        self.center.lerp_(batch_mean, 1 - self.recipe.center_momentum)
        self._batch_mean.zero_()

    def evaluate(self) -> dict[str, float]:
        """Weighted k-NN accuracy of the teacher's `[CLS]` features, and the centre's norm."""
        return {**super().evaluate(), "center_norm": self.center.norm().item()}


def train(
    recipe: DinoRecipe, folder: Path, cache: Path, execution: Execution | None = None
) -> UnrolledModel:
    """Train a backbone without labels by `loop.run`; `cache` is where rendered images are kept.

    Raises ValueError where `folder` holds a run of another recipe, or the crops do not fit the
    model, and ModuleNotFoundError where kornia is missing.
    """
    return distill(Dino, recipe, folder, cache, execution)


__all__ = ["Dino", "DinoRecipe", "ProjectionHead", "distillation_loss", "report", "train"]
