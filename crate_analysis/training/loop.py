"""The loop of every training: it may be killed, and its batches split over rounds and processes."""

from __future__ import annotations

import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crate_analysis.bars import bar
from crate_analysis.distributed import (
    first_process_first,
    rank,
    sum_over_processes,
    world_size,
)
from crate_analysis.models import UnrolledModel
from crate_analysis.models.checkpoints import load_model, save_model
from crate_analysis.training.images import CachedImages
from crate_analysis.training.recipe import Recipe, read_recipe
from crate_analysis.writing import write_bytes, write_text

Row = dict[str, int | float]

FINISHED = "model.safetensors"
"""Written at the end of a run."""
LOCK = "training.lock"
"""Held by the process that trains in a folder."""
PATIENCE = 1.0
"""Seconds to wait for the lock, as `is_training` holds it for an instant."""


class Part(NamedTuple):
    """Which part of which batch some images are: those from `start` to before `stop`."""

    step: int
    start: int
    stop: int


class Task(nn.Module):
    """What is trained, and how a batch is scored.

    Its state_dict is all of it that a checkpoint keeps. Nothing random may be carried from step to
    step, and what is drawn for an image must depend on the recipe's seed, the step and the place
    in the batch alone: then neither a restart nor the split of a batch changes a run.
    """

    metrics: tuple[str, ...]
    """What `forward` gives beside the loss; the log has their means over an epoch."""

    @property
    @abstractmethod
    def model(self) -> UnrolledModel:
        """What is saved, as snapshots and at the end."""

    @abstractmethod
    def forward(
        self, images: UInt8[Tensor, "b 3 H W"], labels: Int64[Tensor, " b"], part: Part
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " m"]]:
        """Loss and metrics, the means over the images of this part."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Further columns of the log, measured after each epoch, by all processes together."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser changes; a group may name its own `weight_decay`, 0 to have none."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def before_update(self, step: int) -> None:
        """Called between the gradients of a step and the optimiser's use of them."""

    def after_update(self, step: int) -> None:
        """Called when a step has changed the weights."""


@dataclass(frozen=True)
class Execution:
    """How a training is carried out; the weights it ends in depend on it by rounding only."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    accumulate: int = 1
    """Rounds of forward and backward that each process makes for one step."""
    compile: bool = False
    """Whether the networks go through torch.compile."""
    save_every: int = 50
    """Steps between checkpoints."""
    snapshots: int = 8
    """How many, from start to end."""

    def __post_init__(self) -> None:
        for name in ("accumulate", "save_every", "snapshots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def run(
    task: Task, recipe: Recipe, folder: Path, data: CachedImages, execution: Execution
) -> UnrolledModel:
    """Train to the end of the recipe, from where an earlier run in `folder` stopped.

    Order, changes of the images and learning rate are functions of seed and step, so task,
    optimiser and step are all that a resumed run needs: on the same machine it ends in
    bit-identical weights. Under torchrun each process takes an equal part of every batch, and the
    result is that of one process up to the order of summation.

    Writes to `folder`, which `claimed` has made the recipe's: `log.csv`, a row an epoch;
    `checkpoint.pt`, every `save_every` steps; `snapshots/step-N.safetensors`, at initialisation
    and then at steps that double up to the last; `model.safetensors` at the end. Each file appears
    whole or not at all. A run that has come to its end is not changed: its model is read.

    Raises ValueError where there are fewer images than the recipe asks for, a batch cannot be
    split as asked, the loss is not finite, or `checkpoint.pt` is damaged or of another run.
    """
    if (folder / FINISHED).exists():
        task.model.load_state_dict(load_model(folder / FINISHED).state_dict())
        return task.model.eval()
    if len(data) < recipe.n_train:
        raise ValueError(
            f"{recipe.dataset} has {len(data)} images to train on, not "
            f"{recipe.n_train}; pass --n-train {len(data)} or fewer"
        )
    parts = split_batch(recipe.batch_size, world_size(), execution.accumulate)[rank()]
    device = execution.device
    task.to(device)
    optimizer = recipe.make_optimizer(task.parameter_groups(), layer_matrices(task))
    start, running, log = _resume(folder, recipe, task, optimizer)
    snapshots = snapshot_steps(recipe.steps, execution.snapshots)
    if start == 0:
        _snapshot(folder, task.model, 0)
    if execution.compile:
        for module in task.modules():
            if isinstance(module, UnrolledModel):
                module.compile()
    # buffers are functions of what all processes share, so there is nothing to broadcast
    scored = DistributedDataParallel(task, broadcast_buffers=False) if world_size() > 1 else task

    steps = range(start, recipe.steps)
    progress = bar(steps, folder.name, recipe.steps, initial=start, unit="step", shown=rank() == 0)
    task.train()
    for step in progress:
        indices = recipe.batch_indices(step)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
            if group["weight_decay"]:
                group["weight_decay"] = recipe.weight_decay_at(step)
        optimizer.zero_grad()
        scores = torch.zeros(1 + len(task.metrics))
        for number, (first, last) in enumerate(parts, start=1):
            images, labels = data.batch(indices[first:last])
            share = (last - first) / recipe.batch_size
            with _without_sum(scored) if number < len(parts) else nullcontext():
                loss, metrics = scored(
                    images.to(device), labels.to(device), Part(step, first, last)
                )
                # processes' gradients are averaged, and their shares are to be summed
                (loss * (share * world_size())).backward()
            scores += share * torch.cat([loss.detach()[None], metrics.detach()]).cpu()
        scores = sum_over_processes(scores.to(device)).cpu()
        if not torch.isfinite(scores[0]):
            raise ValueError(
                f"the loss is {scores[0].item()} at step {step}; lower the learning rate"
            )
        task.before_update(step)
        optimizer.step()
        task.after_update(step)
        running += scores
        progress.set_postfix(loss=f"{scores[0].item():.3f}", refresh=False)

        done = step + 1
        if done % recipe.steps_per_epoch == 0:
            means = (running / recipe.steps_per_epoch).tolist()
            log.append(
                {
                    "step": done,
                    "samples": done * recipe.batch_size,
                    "learning_rate": recipe.learning_rate_at(step),
                    **dict(zip(("loss", *task.metrics), means, strict=True)),
                    **task.evaluate(),
                }
            )
            task.train()
            running.zero_()
        if done in snapshots:
            _snapshot(folder, task.model, done)
        if done % execution.save_every == 0 or done == recipe.steps:
            _save(folder, recipe, task, optimizer, done, running, log)
    task.eval()
    with first_process_first():
        if rank() == 0:
            save_model(task.model, folder / FINISHED)
    return task.model


def layer_matrices(module: nn.Module) -> list[Tensor]:
    """The matrices in the layers of each network in `module`: projections, dictionaries, MLPs."""
    return [
        weight
        for network in module.modules()
        if isinstance(network, UnrolledModel)
        for layer in network.layers
        for weight in cast(nn.Module, layer).parameters()
        if weight.ndim == 2
    ]


def split_batch(size: int, processes: int, rounds: int) -> list[list[tuple[int, int]]]:
    """For each process its rounds, as (first, past the last) of the images in a batch.

    Raises ValueError where they cannot be alike in size.
    """
    if size % (processes * rounds):
        raise ValueError(
            f"batch_size={size} cannot be split into {processes} processes x {rounds} rounds of "
            "equal parts; change --batch-size or --accumulate"
        )
    part = size // (processes * rounds)
    bounds = [(first, first + part) for first in range(0, size, part)]
    return [bounds[k * rounds : (k + 1) * rounds] for k in range(processes)]


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """`count` steps from 0 to `steps`, each from the second on twice the one before (rounded)."""
    later = {round(steps / 2**halvings) for halvings in range(count - 1)}
    return (0, *sorted(later - {0}))


@contextmanager
def claimed(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Within it `folder` is this recipe's, and no other process trains there.

    Raises ValueError that names the differing settings where it holds a run of another recipe, and
    where another process trains in it.
    """
    lock = FileLock(folder / LOCK)
    with first_process_first():
        if rank() == 0:
            if folder.exists() and not folder.is_dir():
                raise ValueError(f"{folder} is not a folder: choose another one to train in")
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise ValueError(
                    f"another process is training in {folder}: wait for it to end, or choose "
                    "another folder"
                ) from None
            try:
                _claim(folder, recipe)
            except BaseException:
                lock.release()
                raise
    try:
        yield
    finally:
        lock.release()  # in the first process; the others hold none


def is_training(folder: Path) -> bool:
    """Whether a process, on this machine or another with the same disk, is training in `folder`."""
    if not folder.is_dir():
        return False
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _claim(folder: Path, recipe: Recipe) -> None:
    path = folder / "recipe.json"
    if path.exists():
        found = read_recipe(path, {recipe.objective: type(recipe)})
        mine, others = recipe.to_dict(), found.to_dict()
        if mine == others:
            return
        checkpoint = folder / "checkpoint.pt"
        step = read_checkpoint(checkpoint)["step"] if checkpoint.exists() else 0
        if (folder / FINISHED).exists() or not recipe.continues(found, step):
            differing = [
                f"{name}={others[name]!r}, not {mine[name]!r}"
                for name in mine
                if others[name] != mine[name]
            ]
            raise ValueError(
                f"{folder} holds a run with {'; '.join(differing)}: "
                "choose another folder to train in"
            )
    write_text(path, json.dumps(recipe.to_dict(), indent=2) + "\n")


def _without_sum(scored: nn.Module) -> Any:
    """Where gradients are summed over processes, leave that to the last round of a step."""
    return scored.no_sync() if isinstance(scored, DistributedDataParallel) else nullcontext()


def _resume(
    folder: Path, recipe: Recipe, task: Task, optimizer: torch.optim.Optimizer
) -> tuple[int, Tensor, list[Row]]:
    """The next step, the epoch's sums so far and the log; fills task and optimiser."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, torch.zeros(1 + len(task.metrics)), []
    state = read_checkpoint(path)
    found = type(recipe)(**{k: v for k, v in state["recipe"].items() if k != "objective"})
    if not recipe.continues(found, state["step"]):
        raise ValueError(f"{path} is of a run with other settings; {_ANEW}")
    task.load_state_dict(state["task"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["running"], state["log"]


_ANEW = "delete it to train from the start again"
_DIGEST = hashlib.sha256


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that a `checkpoint.pt` holds, after a look at the digest at its end.

    Raises ValueError where the file is damaged, or is no checkpoint of this library.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not a file; {_ANEW}")
    content = path.read_bytes()
    size = _DIGEST().digest_size
    if len(content) <= size or _DIGEST(content[:-size]).digest() != content[-size:]:
        raise ValueError(f"{path} is damaged, or of another version of this library; {_ANEW}")
    state: dict[str, Any] = torch.load(
        io.BytesIO(content[:-size]), map_location="cpu", weights_only=True
    )
    return state


def _save(
    folder: Path,
    recipe: Recipe,
    task: Task,
    optimizer: torch.optim.Optimizer,
    step: int,
    running: Tensor,
    log: list[Row],
) -> None:
    if rank() > 0:
        return
    if log:
        write_text(folder / "log.csv", pd.DataFrame(log).to_csv(index=False))
    content = io.BytesIO()
    torch.save(
        {
            "recipe": recipe.to_dict(),
            "task": task.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "running": running,
            "log": log,
        },
        content,
    )
    state = content.getvalue()
    write_bytes(folder / "checkpoint.pt", state + _DIGEST(state).digest())


def _snapshot(folder: Path, model: UnrolledModel, step: int) -> None:
    if rank() > 0:
        return
    path = folder / "snapshots" / f"step-{step:06d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_model(model, path, dtype=torch.float16)
