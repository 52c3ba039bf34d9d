"""How a model is trained: one record that settles every weight of the result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from lion_pytorch import Lion
from torch import Tensor, nn

Optimizer = Literal["adamw", "lion"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """Supervised classification as in Yu et al. 2024, Sec. 3 and appendix, scaled down.

    The paper: Lion, learning rate 9.6e-5, weight decay 0.05, batches of 4,096, 90 epochs, cosine
    schedule, flips, pictures of 224 x 224. Ours differs where the defaults say so.
    """

    arch: str
    overrides: dict[str, Any] = field(default_factory=dict)
    """Config fields that differ from `arch`'s."""
    dataset: str = "creatures"
    n_train: int = 20_000
    n_val: int = 1_000
    """Pictures of the split `monitor`."""
    monitor: str = "dev"
    """Split that the log's `dev` columns are measured on, so that the chapters' split is not looked
    at while training; `val` for data sets that have no `dev`."""
    epochs: int = 5
    batch_size: int = 128
    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0; then a cosine takes it to 0."""
    label_smoothing: float = 0.1
    flip: bool = True
    precision: Precision = "fp32"
    seed: int = 0
    """Of the first weights, the order of the pictures and the flips."""
    data_seed: int = 0
    """Which pictures a generated data set draws; the same for every `seed`, so that models differ
    by their training alone and share the chapters' splits."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("optimizer", get_args(Optimizer)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {choices}")
        for name in ("n_train", "n_val", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.n_train < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the n_train={self.n_train} pictures"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} must be a share of the steps in [0, 1)")
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
        """The rate of a step, counted from 0: a line up to `warmup`, then half a cosine to 0."""
        warmup = round(self.warmup * self.steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup) / (self.steps - warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser before its first step."""
        kind = {"adamw": torch.optim.AdamW, "lion": Lion}[self.optimizer]
        return kind(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def batch_indices(self, step: int) -> list[int]:
        """Which training pictures a step sees: epochs are permutations set by seed and epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = torch.randperm(self.n_train, generator=self._generator(1, epoch))
        return order[position * self.batch_size : (position + 1) * self.batch_size].tolist()

    def flip_at_random(self, images: Tensor, step: int) -> Tensor:
        """Half the pictures mirrored left to right, chosen by seed and step."""
        if not self.flip:
            return images
        chosen = torch.rand(len(images), generator=self._generator(2, step)) < 0.5
        return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(-1), images)

    def _generator(self, purpose: int, index: int) -> torch.Generator:
        # torch's CPU generator takes in 32 bits of a seed only, so the three are hashed to 32
        entropy = np.random.SeedSequence((self.seed, purpose, index))
        return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready record, the inverse of `Recipe(**record)`."""
        return asdict(self)
