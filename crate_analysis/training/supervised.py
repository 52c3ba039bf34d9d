"""Supervised classification, from random weights or from those of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from crate_analysis.distributed import rank, sum_over_processes, world_size
from crate_analysis.models import LayerState, UnrolledModel, build_model, load_model
from crate_analysis.models.shapes import listing
from crate_analysis.training.images import CachedImages, cached_images, classes_of
from crate_analysis.training.loop import Execution, Part, Task, claimed, run
from crate_analysis.training.recipe import SupervisedRecipe

EVALUATION_BATCH = 250


class Classification(Task):
    """Cross-entropy with smoothed labels, on images half of which are mirrored."""

    metrics = ("accuracy",)

    def __init__(
        self, model: UnrolledModel, recipe: SupervisedRecipe, held_out: CachedImages
    ) -> None:
        super().__init__()
        self.network = model
        self.recipe = recipe
        self.held_out = held_out

    @property
    def model(self) -> UnrolledModel:
        """The classifier."""
        return self.network

    def forward(
        self, images: UInt8[Tensor, "b 3 H W"], labels: Int64[Tensor, " b"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """Loss (nats) and the share of images that are named rightly."""
        images = self.recipe.flip_at_random(images, part.step, part.start)
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = self._logits(self.network.normalize(images), part.step).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        return loss, (logits.argmax(1) == labels).float().mean()[None]

    def _logits(self, images: Tensor, step: int) -> Tensor:
        """The network's answers, from the patches that this step sees."""
        network = self.network
        rows, columns = network.patch_grid(images)
        kept = self.recipe.kept_patches(step, rows * columns)
        if kept is None:
            return network(images)
        tokens = network.embed(images)
        others = tokens.shape[1] - rows * columns  # such as [CLS], which stand first
        seen = torch.cat([torch.arange(others), others + kept]).to(tokens.device)
        tokens = tokens[:, seen]
        for index, layer in enumerate(network.layers):
            tokens = LayerState(index, tokens, layer).output
        return network.classify(tokens)

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the split that the recipe watches."""
        loss, accuracy = evaluate(self.network, self.held_out)
        return {"dev_loss": loss, "dev_accuracy": accuracy}


def train(
    recipe: SupervisedRecipe, folder: Path, cache: Path, execution: Execution | None = None
) -> UnrolledModel:
    """Train a classifier by `loop.run`; `cache` is where rendered images are kept.

    Raises ValueError where the data set's classes are not as many as the model's, `folder` holds a
    run of another recipe, or `recipe.start` is another architecture.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.arch, **recipe.overrides)
    classes = classes_of(recipe, model.config.image_size)
    if len(classes) != model.config.num_classes:
        raise ValueError(
            f"{recipe.dataset} has {len(classes)} classes, {recipe.arch} "
            f"{model.config.num_classes}; pass --set num_classes={len(classes)}"
        )
    if recipe.start:
        start_from(model, recipe.start)
    with claimed(folder, recipe):
        pictures, held_out = cached_images(recipe, model.config.image_size, cache)
        task = Classification(model, recipe, held_out)
        return run(task, recipe, folder, pictures, execution or Execution())


def start_from(model: UnrolledModel, start: str) -> None:
    """Give a model the weights of a trained one, all but those of the classifier.

    Raises ValueError where the two differ in more than the classifier.
    """
    source = load_model(start)
    given = without_classifier(source)
    wanted = without_classifier(model)
    differing = [
        key
        for key in wanted | given
        if key not in given or key not in wanted or given[key].shape != wanted[key].shape
    ]
    if differing:
        raise ValueError(
            f"{start} cannot start this model: {listing(differing, 'differ')}; "
            "pass the --arch and --set that it was trained with"
        )
    model.load_state_dict(given, strict=False)


def without_classifier(model: UnrolledModel) -> dict[str, Tensor]:
    """A model's weights but those of its classifier."""
    left_out = f"{model.classifier_name}."
    return {key: w for key, w in model.state_dict().items() if not key.startswith(left_out)}


def report(
    model: UnrolledModel, recipe: SupervisedRecipe, pictures: CachedImages, cache: Path
) -> dict[str, Any]:
    """What a card tells of a classifier: its accuracy and loss on the given images."""
    loss, accuracy = evaluate(model, pictures)
    return {
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "accuracy_of": "the model's own classifier",
    }


@torch.inference_mode()
def evaluate(model: UnrolledModel, pictures: CachedImages) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy, a share in [0, 1]; processes share the work."""
    device = next(model.parameters()).device
    model.eval()
    total = torch.zeros(2, dtype=torch.float64)
    stride = EVALUATION_BATCH * world_size()
    for first in range(EVALUATION_BATCH * rank(), len(pictures), stride):
        indices = list(range(first, min(first + EVALUATION_BATCH, len(pictures))))
        images, labels = (part.to(device) for part in pictures.batch(indices))
        logits = model(model.normalize(images))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        total += torch.tensor([loss.item(), (logits.argmax(1) == labels).sum().item()])
    loss, accuracy = (sum_over_processes(total.to(device)) / len(pictures)).tolist()
    return loss, accuracy
