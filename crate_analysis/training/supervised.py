"""Supervised classification that can be killed: started again, it ends in the same weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from crate_analysis.datasets import load_dataset
from crate_analysis.models import UnrolledModel, build_model
from crate_analysis.models.checkpoints import save_model
from crate_analysis.training.pictures import CachedPictures
from crate_analysis.training.recipe import Recipe

Row = tuple[int | float, ...]
LOG_COLUMNS = ("step", "samples", "learning_rate", "loss", "accuracy", "dev_loss", "dev_accuracy")
EVALUATION_BATCH = 250


def train(
    recipe: Recipe,
    folder: Path,
    cache: Path,
    device: str = "cpu",
    save_every: int = 50,
    n_snapshots: int = 8,
) -> UnrolledModel:
    """Train to the end of the recipe, from where an earlier run in `folder` stopped.

    Nothing random is carried from step to step (order, flips and learning rate are functions of
    seed and step), so weights, optimiser and step are all that a resumed run needs: on the same
    machine it ends in bit-identical weights.

    Writes to `folder`: `recipe.json`; `log.csv`, a row an epoch; `checkpoint.pt`, every
    `save_every` steps; `snapshots/step-N.safetensors`, at initialisation and then at steps that
    double up to the last; `model.safetensors` at the end. Each file appears whole or not at all.

    Raises ValueError where `folder` holds a run of another recipe, or the loss is not finite.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.arch, **recipe.overrides).to(device)
    size = model.config.image_size
    for split in ("train", recipe.monitor):  # a split that is missing is found out here
        classes = load_dataset(recipe.dataset, split, size, limit=1).classes
    if len(classes) != model.config.num_classes:
        raise ValueError(
            f"{recipe.dataset} has {len(classes)} classes, {recipe.arch} "
            f"{model.config.num_classes}; pass --set num_classes={len(classes)}"
        )
    _claim(folder, recipe)
    pictures = CachedPictures(
        recipe.dataset, "train", size, recipe.n_train, recipe.data_seed, cache
    )
    held_out = CachedPictures(
        recipe.dataset, recipe.monitor, size, recipe.n_val, recipe.data_seed, cache
    )
    optimizer = recipe.make_optimizer(model.parameters())
    start, running, log = _resume(folder, model, optimizer)
    snapshots = snapshot_steps(recipe.steps, n_snapshots)
    if start == 0:
        _snapshot(folder, model, 0)

    progress = tqdm(
        range(start, recipe.steps), folder.name, initial=start, total=recipe.steps, unit="step"
    )
    for step in progress:
        images, labels = pictures.batch(recipe.batch_indices(step))
        images = recipe.flip_at_random(images.to(device), step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss, hits = _loss(recipe, model, images, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        running += torch.tensor([loss.item(), hits.float().mean().item()])
        progress.set_postfix(loss=f"{loss.item():.3f}")

        done = step + 1
        if done % recipe.steps_per_epoch == 0:
            loss_mean, accuracy = (running / recipe.steps_per_epoch).tolist()
            row = (done, done * recipe.batch_size, recipe.learning_rate_at(step))
            log.append((*row, loss_mean, accuracy, *evaluate(model, held_out)))
            running.zero_()
        if done in snapshots:
            _snapshot(folder, model, done)
        if done % save_every == 0 or done == recipe.steps:
            _save(folder, model, optimizer, done, running, log)
    model.eval()
    save_model(model, folder / "model.safetensors")
    return model


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """`count` steps from 0 to `steps`, each from the second on twice the one before (rounded)."""
    later = {round(steps / 2**halvings) for halvings in range(count - 1)}
    return (0, *sorted(later - {0}))


@torch.inference_mode()
def evaluate(model: UnrolledModel, pictures: CachedPictures) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy, a share in [0, 1]."""
    device = next(model.parameters()).device
    model.eval()
    total = torch.zeros(2)
    for first in range(0, len(pictures), EVALUATION_BATCH):
        indices = list(range(first, min(first + EVALUATION_BATCH, len(pictures))))
        images, labels = (part.to(device) for part in pictures.batch(indices))
        logits = model(model.normalize(images))
        loss = F.cross_entropy(logits, labels, reduction="sum")
        total += torch.tensor([loss.item(), (logits.argmax(1) == labels).sum().item()])
    model.train()
    loss, accuracy = (total / len(pictures)).tolist()
    return loss, accuracy


def _loss(
    recipe: Recipe, model: UnrolledModel, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The training loss, and which pictures were named rightly."""
    bf16 = recipe.precision == "bf16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = model(model.normalize(images)).float()
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    return loss, logits.argmax(1) == labels


def _claim(folder: Path, recipe: Recipe) -> None:
    """Make `folder` this recipe's, or see that it already is."""
    path = folder / "recipe.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(recipe.to_dict(), indent=2) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(recipe.to_dict()))
    differing = [
        f"{name}={found.get(name)!r}, not {wanted[name]!r}"
        for name in wanted
        if found.get(name) != wanted[name]
    ]
    if differing:
        raise ValueError(
            f"{folder} holds a run with {'; '.join(differing)}: choose another folder to train in"
        )


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, Tensor, list[Row]]:
    """The next step, the epoch's sums so far and the log; fills model and optimiser."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, torch.zeros(2), []
    state: dict[str, Any] = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["running"], state["log"]


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    running: Tensor,
    log: list[Row],
) -> None:
    write_text(folder / "log.csv", pd.DataFrame(log, columns=LOG_COLUMNS).to_csv(index=False))
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "running": running,
        "log": log,
    }
    part = folder / "checkpoint.pt.part"
    torch.save(state, part)
    os.replace(part, folder / "checkpoint.pt")


def _snapshot(folder: Path, model: UnrolledModel, step: int) -> None:
    path = folder / "snapshots" / f"step-{step:06d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_model(model, path, dtype=torch.float16)


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
