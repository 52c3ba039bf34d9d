"""DINO: self-distillation without labels (Caron et al. 2021, arXiv 2104.14294), for any backbone.

A student learns to give the answer of its own moving average, the teacher, on another crop of the
same picture. Written after the paper's Algorithm 1 and its appendix; the backbone may be a ViT, as
there, or CRATE.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from crate_analysis.distributed import rank, sum_over_processes, world_size
from crate_analysis.models import UnrolledModel, build_model
from crate_analysis.training.augment import MultiCrop
from crate_analysis.training.knn import NEIGHBOURS, knn_accuracy
from crate_analysis.training.loop import Execution, Part, Task, claimed, run
from crate_analysis.training.pictures import CachedPictures, cached_pictures, classes_of
from crate_analysis.training.recipe import Recipe

EVALUATION_BATCH = 250


@dataclass(frozen=True)
class DinoRecipe(Recipe):
    """DINO's recipe, scaled down; the paper's values stand with the fields where ours differ.

    In runs of a few hundred steps the paper's temperatures and centre end in one answer to all
    pictures: the teacher's outputs drift faster than a centre of momentum 0.9 follows.
    """

    objective = "dino"

    epochs: int = 2
    """Paper: 100 to 800, of ImageNet."""
    batch_size: int = 64
    """Paper: 1,024."""
    learning_rate: float = 1e-3
    """Paper: 5e-4 for 256 pictures a batch, in proportion."""
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    """Reached by a cosine at the last step."""
    n_local_crops: int = 4
    """Paper: 8 or 10."""
    local_size: int = 36
    """Pixels; the paper has 96 beside global crops of 224, ours are of the model's picture size."""
    jitter: float = 1.0
    """Strength of the change of colours, see `MultiCrop`."""
    out_dim: int = 512
    """K, outputs of the projection head. Paper: 65,536."""
    hidden_dim: int = 512
    """Of the projection head. Paper: 2,048."""
    bottleneck_dim: int = 32
    """Paper: 256."""
    student_temperature: float = 0.1
    teacher_temperature: float = 0.03
    """Paper: 0.04 at first, then 0.07."""
    first_teacher_temperature: float = 0.03
    teacher_warmup: float = 0.3
    """Share of the steps over which the teacher's temperature goes from the first to the last."""
    momentum: float = 0.99
    """Of the teacher at the first step; a cosine takes it to 1. Paper: 0.996, for longer runs."""
    center_momentum: float = 0.5
    """Paper: 0.9."""
    frozen: float = 0.02
    """Share of the steps, at the start, in which the head's last layer is not trained. Paper: the
    first of 100 or more epochs."""
    clip: float = 3.0
    """Greatest norm of the gradient."""
    knn_pictures: int = 4_000
    """Training pictures whose features vote on the class of the `monitor` split's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("n_local_crops", 1),
            ("local_size", 1),
            ("out_dim", 2),
            ("hidden_dim", 1),
            ("bottleneck_dim", 1),
            ("knn_pictures", NEIGHBOURS),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        for name in (
            "student_temperature",
            "teacher_temperature",
            "first_teacher_temperature",
            "clip",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be more than 0")
        for name in ("teacher_warmup", "frozen", "momentum", "center_momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1]")
        if "num_classes" in self.overrides:
            raise ValueError("DINO trains without classes; leave num_classes out of --set")

    def momentum_at(self, step: int) -> float:
        """The teacher's momentum, from `momentum` at step 0 up to 1 by half a cosine."""
        return 1 - (1 - self.momentum) * _cosine(step / self.steps)

    def weight_decay_at(self, step: int) -> float:
        """From `weight_decay` at step 0 to `final_weight_decay` by half a cosine."""
        change = self.weight_decay - self.final_weight_decay
        return self.final_weight_decay + change * _cosine(step / self.steps)

    def teacher_temperature_at(self, step: int) -> float:
        """In a line up to `teacher_warmup`, then constant: sharp answers early risk collapse."""
        warmup = self.teacher_warmup * self.steps
        done = min(1.0, step / warmup) if warmup else 1.0
        rise = self.teacher_temperature - self.first_teacher_temperature
        return self.first_teacher_temperature + done * rise

    def augmentation_seed(self, step: int, block: int) -> int:
        """Of the views of a block of a step's pictures."""
        return self.generator(3, step, block).initial_seed()


def _cosine(done: float) -> float:
    """Half a cosine, from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2


class ProjectionHead(nn.Module):
    """Three linear layers with GELU, then cosine similarities to `out_dim` learned directions.

    The paper's weight-normalised last layer with its gain fixed to 1 is this very similarity.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, out_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last_layer = nn.Linear(bottleneck, out_dim, bias=False)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes k"]:
        """Similarities in [-1, 1], in float32."""
        projected = self.mlp(features)
        with torch.autocast(projected.device.type, enabled=False):
            # temperatures magnify what half precision would round off here
            directions = F.normalize(self.last_layer.weight, dim=-1)
            return F.linear(F.normalize(projected.float(), dim=-1), directions)


class Branch(nn.Module):
    """A backbone with its projection head: the student, or the teacher."""

    def __init__(self, backbone: UnrolledModel, head: ProjectionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, *views: UInt8[Tensor, "_ b 3 _ _"]) -> Float[Tensor, "v b k"]:
        """Outputs for each view; those of one size come together and go through at once."""
        features = [
            self.backbone(self.backbone.normalize(same_size.flatten(0, 1))).unflatten(
                0, same_size.shape[:2]
            )
            for same_size in views
        ]
        return self.head(torch.cat(features))


def distillation_loss(
    teacher: Float[Tensor, "g b k"], student: Float[Tensor, "v b k"]
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) of the student's answers under the teacher's, as in Eq. 3 of the paper.

    `teacher` holds probabilities and `student` their logarithms; the first g of the student's v
    views are those that the teacher saw. The mean over pictures and over pairs of different views.
    """
    pairs = -torch.einsum("gbk,vbk->gv", teacher, student) / teacher.shape[1]
    different = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[different].mean()


class Dino(Task):
    """A student and its teacher, of which the teacher's backbone is kept.

    The log has the teacher's entropy (nats, of each answer, at most log K) and its divergence from
    the student, KL(teacher || student): the loss is their sum. Where the teacher gives the same
    answer to all pictures the divergence goes to 0, with entropy log K or 0: it has collapsed.
    """

    metrics = ("teacher_entropy", "divergence")

    def __init__(
        self,
        backbone: UnrolledModel,
        recipe: DinoRecipe,
        pictures: CachedPictures,
        held_out: CachedPictures,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.pictures = pictures
        self.held_out = held_out
        config = backbone.config
        if recipe.local_size % config.patch_size:
            raise ValueError(
                f"local_size={recipe.local_size} is not a multiple of the "
                f"patch_size={config.patch_size}; change --local-size"
            )
        self._multi_crop = MultiCrop(
            config.image_size, recipe.local_size, recipe.n_local_crops, jitter=recipe.jitter
        )
        head = ProjectionHead(config.dim, recipe.hidden_dim, recipe.bottleneck_dim, recipe.out_dim)
        self.student = Branch(backbone, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(recipe.out_dim))
        self._batch_mean: Tensor
        self.register_buffer("_batch_mean", torch.zeros(recipe.out_dim), persistent=False)

    @property
    def model(self) -> UnrolledModel:
        """The teacher's backbone, which the paper evaluates."""
        return self.teacher.backbone

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The student's weights; biases, and what else has one axis, do not decay."""
        weights = list(self.student.parameters())
        return [
            {"params": [w for w in weights if w.ndim > 1]},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]

    def forward(
        self, images: UInt8[Tensor, "b 3 H W"], labels: Int64[Tensor, " b"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """The loss of these pictures, and `metrics`; labels are not looked at."""
        recipe = self.recipe
        views = self._multi_crop(
            images, part.start, lambda block: recipe.augmentation_seed(part.step, block)
        )
        bf16 = recipe.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                similarities = self.teacher(views.global_crops)
            log_student = (self.student(*views) / recipe.student_temperature).log_softmax(-1)
        self._batch_mean += similarities.mean(0).sum(0) / recipe.batch_size
        sharpened = (similarities - self.center) / recipe.teacher_temperature_at(part.step)
        teacher = sharpened.softmax(-1)
        loss = distillation_loss(teacher, log_student)
        entropy = -(teacher * sharpened.log_softmax(-1)).sum(-1).mean()
        return loss, torch.stack([entropy, loss.detach() - entropy])

    def before_update(self, step: int) -> None:
        """Without the last layer's gradient at the start, and cut to `clip`."""
        if step < self.recipe.frozen * self.recipe.steps:
            self.student.head.last_layer.weight.grad = None
        nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip)

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """The teacher moves towards the student, and the centre towards the batch's mean output."""
        share = 1 - self.recipe.momentum_at(step)
        for mine, students in zip(
            self.teacher.parameters(), self.student.parameters(), strict=True
        ):
            mine.lerp_(students, share)
        batch_mean = sum_over_processes(self._batch_mean)
        self.center.lerp_(batch_mean, 1 - self.recipe.center_momentum)
        self._batch_mean.zero_()

    def evaluate(self) -> dict[str, float]:
        """Weighted k-NN accuracy of the teacher's `[CLS]` features, and the centre's norm."""
        known = min(self.recipe.knn_pictures, len(self.pictures))
        accuracy = knn_accuracy(
            *cls_features(self.model, self.pictures, known),
            *cls_features(self.model, self.held_out, len(self.held_out)),
        )
        return {"dev_knn_accuracy": accuracy, "center_norm": self.center.norm().item()}


def train(
    recipe: DinoRecipe, folder: Path, cache: Path, execution: Execution | None = None
) -> UnrolledModel:
    """Train a backbone without labels by `loop.run`; `cache` is where rendered pictures are kept.

    Raises ValueError where `folder` holds a run of another recipe, or the crops do not fit the
    model, and ModuleNotFoundError where kornia is missing.
    """
    torch.manual_seed(recipe.seed)
    backbone = build_model(recipe.arch, **recipe.overrides, num_classes=0)
    classes_of(recipe, backbone.config.image_size)
    pictures, held_out = cached_pictures(recipe, backbone.config.image_size, cache)
    # rendering, where it is needed, has drawn from the global generator, and the head does so too
    torch.manual_seed(recipe.generator(4).initial_seed())
    task = Dino(backbone, recipe, pictures, held_out)
    with claimed(folder, recipe):
        return run(task, recipe, folder, pictures, execution or Execution())


def report(
    model: UnrolledModel, recipe: DinoRecipe, pictures: CachedPictures, cache: Path
) -> dict[str, Any]:
    """What a card tells of a backbone: its weighted k-NN accuracy on the given pictures."""
    known = CachedPictures(
        recipe.dataset,
        "train",
        model.config.image_size,
        recipe.knn_pictures,
        recipe.data_seed,
        cache,
    )
    accuracy = knn_accuracy(
        *cls_features(model, known, len(known)), *cls_features(model, pictures, len(pictures))
    )
    return {
        "validation_accuracy": accuracy,
        "accuracy_of": f"a vote of the {NEIGHBOURS} nearest of {len(known):,} training pictures",
    }


@torch.inference_mode()
def cls_features(
    model: UnrolledModel, pictures: CachedPictures, count: int
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
    """A backbone's `[CLS]` features of the first `count` pictures, and their labels.

    Processes share the work, and all have the result.
    """
    model.eval()
    device = next(model.parameters()).device
    features = torch.zeros(count, model.config.dim, device=device)
    stride = EVALUATION_BATCH * world_size()
    for first in range(EVALUATION_BATCH * rank(), count, stride):
        here = slice(first, min(first + EVALUATION_BATCH, count))
        images, _ = pictures.batch(list(range(here.start, here.stop)))
        features[here] = model(model.normalize(images.to(device)))
    return sum_over_processes(features).cpu(), torch.from_numpy(pictures.labels[:count])
