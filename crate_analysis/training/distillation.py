"""What self-distillation has in common: a student learns to give its moving average's answers.

The teacher is the student's exponential moving average and sees other views: crops of the same
image, or of another image of the same animal.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from crate_analysis.distributed import rank, sum_over_processes, world_size
from crate_analysis.models import UnrolledModel, build_model
from crate_analysis.probes.controls import pixel_features
from crate_analysis.training.augment import MultiCrop, Views
from crate_analysis.training.images import CachedImages, cached_images, classes_of
from crate_analysis.training.knn import NEIGHBOURS, knn_accuracy
from crate_analysis.training.loop import Execution, Part, Task, claimed, run
from crate_analysis.training.recipe import Recipe

EVALUATION_BATCH = 250


@dataclass(frozen=True)
class DistillationRecipe(Recipe):
    """What every self-distillation has; the paper's (DINO's) values stand where ours differ."""

    epochs: int = 2
    """Paper: 100 to 800, of ImageNet."""
    batch_size: int = 64
    """Paper: 1,024."""
    learning_rate: float = 1e-3
    """Paper: 5e-4 for 256 images a batch, in proportion."""
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    """Reached by a cosine at the last step."""
    partners: str = ""
    """A data set whose item i shows the same animal as item i of `dataset` in another image, such
    as creatures-restaged: half of the views are taken of it. By default all are of one image."""
    n_local_crops: int = 4
    """Paper: 8 or 10."""
    local_size: int = 36
    """Pixels; the paper has 96 beside global crops of 224, ours are of the model's image size."""
    global_scale: float = 0.4
    """Least share of the image's area that a global crop shows."""
    jitter: float = 1.0
    """Strength of the change of colours, see `MultiCrop`."""
    grey: float = 0.2
    """Share of the views that lose their colour, see `MultiCrop`."""
    hidden_dim: int = 512
    """Of the projection head. Paper: 2,048."""
    bottleneck_dim: int = 32
    """Paper: 256."""
    momentum: float = 0.99
    """Of the teacher at the first step; a cosine takes it to 1. Paper: 0.996, for longer runs."""
    clip: float = 3.0
    """Greatest norm of the gradient."""
    knn_images: int = 4_000
    """Training images whose features vote on the class of the `monitor` split's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (
            ("n_local_crops", 0),
            ("local_size", 1),
            ("hidden_dim", 1),
            ("bottleneck_dim", 1),
            ("knn_images", NEIGHBOURS),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip} must be more than 0")
        for name in ("momentum", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1]")
        if not 0 < self.global_scale <= 1:
            raise ValueError(f"global_scale={self.global_scale} must be in (0, 1]")
        if "num_classes" in self.overrides:
            raise ValueError(
                "self-distillation trains without classes; leave num_classes out of --set"
            )

    def momentum_at(self, step: int) -> float:
        """The teacher's momentum, from `momentum` at step 0 up to 1 by half a cosine."""
        return 1 - (1 - self.momentum) * _cosine(step / self.steps)

    def weight_decay_at(self, step: int) -> float:
        """From `weight_decay` at step 0 to `final_weight_decay` by half a cosine."""
        change = self.weight_decay - self.final_weight_decay
        return self.final_weight_decay + change * _cosine(step / self.steps)

    def augmentation_seed(self, step: int, block: int) -> int:
        """Of the views of a block of a step's images."""
        return self.generator(3, step, block).initial_seed()

    def build_backbone(self) -> UnrolledModel:
        """The untrained network, its weights settled by the seed."""
        torch.manual_seed(self.seed)
        return build_model(self.arch, **self.overrides, num_classes=0)


def _cosine(done: float) -> float:
    """Half a cosine, from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2


class Bottleneck(nn.Module):
    """Three linear layers with GELU, to features of unit length: DINO's head without its last."""

    def __init__(self, dim: int, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes k"]:
        """Features of unit length, in float32."""
        projected = self.mlp(features)
        with torch.autocast(projected.device.type, enabled=False):
            return F.normalize(projected.float(), dim=-1)


class Branch(nn.Module):
    """A backbone with its projection head: the student, or the teacher."""

    def __init__(self, backbone: UnrolledModel, head: nn.Module) -> None:
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
            if len(same_size)
        ]
        return self.head(torch.cat(features))


class SelfDistillation(Task):
    """A student and its teacher, of which the teacher's backbone is kept.

    `partners` are images whose item i shows the same animal as item i of `data`.
    """

    recipe: DistillationRecipe

    def __init__(
        self,
        backbone: UnrolledModel,
        head: nn.Module,
        recipe: DistillationRecipe,
        data: CachedImages,
        held_out: CachedImages,
        partners: CachedImages | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.data = data
        self.held_out = held_out
        self.partners = partners
        config = backbone.config
        if recipe.n_local_crops and recipe.local_size % config.patch_size:
            raise ValueError(
                f"local_size={recipe.local_size} is not a multiple of the "
                f"patch_size={config.patch_size}; change --local-size"
            )
        self._multi_crop = MultiCrop(
            config.image_size,
            recipe.local_size,
            recipe.n_local_crops,
            global_scale=(recipe.global_scale, 1.0),
            jitter=recipe.jitter,
            grey=recipe.grey,
        )
        self.student = Branch(backbone, head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    @property
    def model(self) -> UnrolledModel:
        """The teacher's backbone, which the papers evaluate."""
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
        """The loss of these images, and `metrics`; labels are not looked at."""
        views = self.views(images, part)
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                teacher = self.teacher(views.global_crops)
            student = self.student(*views)
        return self.score(teacher, student, part)

    @abstractmethod
    def score(
        self, teacher: Float[Tensor, "2 b k"], student: Float[Tensor, "v b k"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """Loss and metrics from both branches' outputs; the first two views are the teacher's."""

    def views(self, images: UInt8[Tensor, "b 3 H W"], part: Part) -> Views:
        """The views of a part of a batch, which seed and step settle."""
        others = None
        if self.partners is not None:
            indices = self.recipe.batch_indices(part.step)[part.start : part.stop]
            others = self.partners.batch(indices)[0].to(images.device)
        return self._multi_crop(
            images,
            part.start,
            lambda block: self.recipe.augmentation_seed(part.step, block),
            others,
        )

    def before_update(self, step: int) -> None:
        """The gradient is cut to `clip`."""
        nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip)

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """The teacher moves towards the student."""
        share = 1 - self.recipe.momentum_at(step)
        for mine, students in zip(
            self.teacher.parameters(), self.student.parameters(), strict=True
        ):
            mine.lerp_(students, share)

    def evaluate(self) -> dict[str, float]:
        """Weighted k-NN accuracy of the teacher's `[CLS]` features."""
        known = min(self.recipe.knn_images, len(self.data))
        accuracy = knn_accuracy(
            *cls_features(self.model, self.data, known),
            *cls_features(self.model, self.held_out, len(self.held_out)),
        )
        return {"dev_knn_accuracy": accuracy}


def distill(
    kind: Callable[..., SelfDistillation],
    recipe: DistillationRecipe,
    folder: Path,
    cache: Path,
    execution: Execution | None = None,
) -> UnrolledModel:
    """Train a backbone by a kind of self-distillation, with `loop.run`.

    Raises ValueError where `folder` holds a run of another recipe, or the crops do not fit the
    model, and ModuleNotFoundError where kornia is missing.
    """
    backbone = recipe.build_backbone()
    size = backbone.config.image_size
    classes_of(recipe, size)
    data, held_out = cached_images(recipe, size, cache)
    partners = None
    if recipe.partners:
        others = replace(recipe, dataset=recipe.partners)
        partners, _ = cached_images(others, size, cache)
    # rendering, where it is needed, has drawn from the global generator, and the head does so too
    torch.manual_seed(recipe.generator(4).initial_seed())
    task = kind(backbone, recipe, data, held_out, partners)
    with claimed(folder, recipe):
        return run(task, recipe, folder, data, execution or Execution())


def report(
    model: UnrolledModel, recipe: DistillationRecipe, data: CachedImages, cache: Path
) -> dict[str, Any]:
    """What a card tells of a backbone: its weighted k-NN accuracy on the given images.

    The gate that it has to pass is the same vote on raw pixels.
    """
    known = CachedImages(
        recipe.dataset,
        "train",
        model.config.image_size,
        recipe.knn_images,
        recipe.data_seed,
        cache,
    )
    accuracy = knn_accuracy(
        *cls_features(model, known, len(known)), *cls_features(model, data, len(data))
    )
    raw = knn_accuracy(*_pixels(known), *_pixels(data))
    return {
        "validation_accuracy": accuracy,
        "gate": raw,
        "accuracy_of": f"a vote of the {NEIGHBOURS} nearest of {len(known):,} training images",
    }


@torch.inference_mode()
def cls_features(
    model: UnrolledModel, data: CachedImages, count: int
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
    """A backbone's `[CLS]` features of the first `count` images, and their labels.

    Processes share the work, and all have the result.
    """
    model.eval()
    device = next(model.parameters()).device
    features = torch.zeros(count, model.config.dim, device=device)
    stride = EVALUATION_BATCH * world_size()
    for first in range(EVALUATION_BATCH * rank(), count, stride):
        here = slice(first, min(first + EVALUATION_BATCH, count))
        images, _ = data.batch(list(range(here.start, here.stop)))
        features[here] = model(model.normalize(images.to(device)))
    return sum_over_processes(features).cpu(), torch.from_numpy(data.labels[:count])


def _pixels(data: CachedImages) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
    images, labels = data.batch(list(range(len(data))))
    return pixel_features(images), labels
