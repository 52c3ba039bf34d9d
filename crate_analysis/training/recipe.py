"""How a model is trained: one record that settles every weight of the result."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from lion_pytorch import Lion
from torch import Tensor

Optimizer = Literal["adamw", "lion", "muon"]
Precision = Literal["fp32", "bf16"]
Schedule = Literal["cosine", "trapezoid"]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for all other weights, as one optimiser.

    Muon makes the singular values of a matrix' step alike, and so is for matrices only (Jordan et
    al. 2024). `muon` has the ids of those. Steps are scaled to the size of AdamW's (Liu et al.
    2025, arXiv 2502.16982, Sec. 2.2), so that one learning rate serves both. Raises ValueError
    where none of the weights is among them: that would be AdamW under another name.
    """

    def __init__(self, groups: list[dict[str, Any]], muon: set[int], **settings: Any) -> None:
        mine, others = (
            [
                {**group, "params": [p for p in group["params"] if (id(p) in muon) == chosen]}
                for group in groups
            ]
            for chosen in (True, False)
        )
        self._parts: list[torch.optim.Optimizer] = []
        mine = [group for group in mine if group["params"]]
        if not mine:
            raise ValueError("none of the weights to train is a matrix for Muon; choose adamw")
        self._parts.append(torch.optim.Muon(mine, adjust_lr_fn="match_rms_adamw", **settings))
        if others := [group for group in others if group["params"]]:
            self._parts.append(torch.optim.AdamW(others, fused=True, **settings))
        super().__init__([group for part in self._parts for group in part.param_groups], settings)
        # the same dictionaries, so that a rate set here is the parts' rate
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change all weights by their gradients."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """That of each part."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


@dataclass(frozen=True)
class Recipe:
    """What every training has: images, their order, the optimiser and its schedule."""

    objective: ClassVar[str]
    """What cards call this way of training."""

    arch: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Config fields that differ from `arch`'s."""
    dataset: str = "creatures"
    n_train: int = 20_000
    n_val: int = 1_000
    """Images of the split `monitor`."""
    monitor: str = "dev"
    """Split that the log's `dev` columns are measured on, so that the chapters' split is not looked
    at while training; `val` for data sets that have no `dev`."""
    epochs: int = 5
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    """Muon (Jordan et al. 2024) changes the matrices of the layers, AdamW all else beside it; the
    rate is AdamW's for both, as Muon's steps are scaled to the size of AdamW's."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Schedule = "cosine"
    """What follows: half a cosine to 0, or the full rate and then a line to 0. A trapezoid may be
    made longer or shorter while it is at the full rate, and all steps so far stay the same."""
    cooldown: float = 0.2
    """Share of the steps, at the end, over which a trapezoid falls."""
    precision: Precision = "fp32"
    seed: int = 0
    """Of the first weights, the order of the images and how they are changed."""
    data_seed: int = 0
    """Which images a generated data set draws; the same for every `seed`, so that models differ
    by their training alone and share the chapters' splits."""

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_kind(one.name, getattr(self, one.name), one.default)
        if not self.arch:
            raise ValueError("no architecture is named: pass --arch, such as vit_small_patch8_224")
        for name, choices in (
            ("optimizer", get_args(Optimizer)),
            ("precision", get_args(Precision)),
            ("schedule", get_args(Schedule)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {choices}")
        for name in ("n_train", "n_val", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.n_train < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the n_train={self.n_train} images"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} must be a share of the steps in [0, 1)")
        if not 0 < self.cooldown <= 1 - self.warmup:
            raise ValueError(
                f"cooldown={self.cooldown} must be a share of the steps that warmup={self.warmup} "
                "leaves, more than 0"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be more than 0")

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one epoch; an incomplete last one is left out."""
        return self.n_train // self.batch_size

    @property
    def steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.epochs * self.steps_per_epoch

    def learning_rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0: a line up to `warmup`, then as `schedule` says."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "trapezoid":
            left = (self.steps - step) / (self.cooldown * self.steps)
            return self.learning_rate * min(1.0, left)
        done = (step - warmup) / (self.steps - warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def weight_decay_at(self, step: int) -> float:
        """The weight decay of a step, where a group of parameters has any."""
        return self.weight_decay

    @property
    def constant_until(self) -> int:
        """The step from which the end of the run changes what a step does; 0 for a cosine."""
        return int((1 - self.cooldown) * self.steps) if self.schedule == "trapezoid" else 0

    def continues(self, other: Recipe, step: int) -> bool:
        """Whether a run of `other` that has done `step` steps has done what this recipe asks for.

        So it is where they are alike, and of two trapezoids that differ in length alone as long as
        neither has begun to fall.
        """
        ends = {"epochs", "warmup", "cooldown"}
        mine, others = self.to_dict(), other.to_dict()
        if mine == others:
            return True
        return (
            step <= min(self.constant_until, other.constant_until)
            and {name for name in mine if mine[name] != others.get(name)} <= ends
            and round(self.warmup * self.steps) == round(other.warmup * other.steps)
        )

    def make_optimizer(
        self, groups: list[dict[str, Any]], matrices: Iterable[Tensor]
    ) -> torch.optim.Optimizer:
        """The optimiser before its first step; a group may name a `weight_decay` of its own.

        `matrices` are the weights that Muon changes, those of the layers.
        """
        settings: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "lion":
            return Lion(groups, **settings)
        if self.optimizer == "muon":
            return MuonWithAdamW(groups, {id(matrix) for matrix in matrices}, **settings)
        return torch.optim.AdamW(groups, fused=True, **settings)

    def batch_indices(self, step: int) -> list[int]:
        """Which training images a step sees: epochs are permutations set by seed and epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = torch.randperm(self.n_train, generator=self.generator(1, epoch))
        return order[position * self.batch_size : (position + 1) * self.batch_size].tolist()

    def generator(self, *purpose: int) -> torch.Generator:
        """Random numbers settled by the recipe's seed and what they are for.

        1 is the order of the images, 2 flips, 3 views, 4 the weights of a projection head,
        5 which patches are left out.
        """
        # torch's CPU generator takes in 32 bits of a seed only, so all are hashed to 32
        entropy = np.random.SeedSequence((self.seed, *purpose))
        return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))

    def to_dict(self) -> dict[str, Any]:
        """A record as JSON gives it back, the inverse of `read_recipe`."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"objective": self.objective, **record}


@dataclass(frozen=True)
class SupervisedRecipe(Recipe):
    """Supervised classification as in Yu et al. 2024, Sec. 3 and appendix, scaled down.

    The paper: Lion, learning rate 9.6e-5, weight decay 0.05, batches of 4,096, 90 epochs, cosine
    schedule, flips, images of 224 x 224. Ours differs where the defaults say so.
    """

    objective = "supervised"

    start: str = ""
    """A shipped model, or a checkpoint file, of this architecture whose weights (all but the
    classifier's) training starts from, as in fine-tuning; none for random ones."""
    label_smoothing: float = 0.1
    flip: bool = True
    patch_dropout: float = 0.0
    """Share of the patches that a step leaves out, others at each step, up to the last `cooldown`
    of the steps, which see all (Liu et al. 2022, PatchDropout, arXiv 2208.07220)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"patch_dropout={self.patch_dropout} must be a share in [0, 1)")

    def kept_patches(self, step: int, count: int) -> Tensor | None:
        """Which of `count` patches, in order, a step sees; None for all."""
        if not self.patch_dropout or step >= (1 - self.cooldown) * self.steps:
            return None
        kept = max(1, round((1 - self.patch_dropout) * count))
        order = torch.randperm(count, generator=self.generator(5, step))
        return order[:kept].sort().values

    def flip_at_random(self, images: Tensor, step: int, first: int = 0) -> Tensor:
        """Half the images mirrored left to right, chosen by seed, step and place in the batch.

        `first` is the place of the first of `images`, where they are a part of the batch only.
        """
        if not self.flip:
            return images
        drawn = torch.rand(self.batch_size, generator=self.generator(2, step))
        chosen = drawn[first : first + len(images)] < 0.5
        return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(-1), images)


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Raise ValueError unless a setting is of its default's kind; a whole number may be a float."""
    kind = type(default)
    if kind not in (bool, int, float, str):
        return
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
        said = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ValueError(f"{name}={value!r} must be {said[kind]}")


def read_recipe(path: Path, kinds: Mapping[str, type[Recipe]]) -> Recipe:
    """The recipe that a run's `recipe.json` records; `kinds` are by their objective.

    Raises ValueError where it is damaged, or was written by another version, with other settings.
    """
    record = read_record(path)
    objective = record.pop("objective", SupervisedRecipe.objective)
    if objective not in kinds:
        raise ValueError(f"{path}: there is no objective {objective!r}, only {', '.join(kinds)}")
    unknown = sorted(set(record) - {field.name for field in fields(kinds[objective])})
    if unknown:
        raise ValueError(f"{path} has settings of another version: {', '.join(unknown)}")
    try:
        return kinds[objective](**record)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {_ANEW}") from None


_ANEW = "choose another folder, or delete this one to train again"


def read_record(path: Path) -> dict[str, Any]:
    """What a run's `recipe.json` holds. Raises ValueError where it is no recipe."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, IsADirectoryError):
        raise ValueError(f"{path} is damaged; {_ANEW}") from None
    if not isinstance(record, dict) or not isinstance(record.get("overrides", {}), dict):
        raise ValueError(f"{path} holds no recipe; {_ANEW}")
    return record
