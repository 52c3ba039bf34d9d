"""What every data set of the library is and yields."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.utils.data import Dataset


class UnreadableSampleError(ValueError):
    """One sample's files are damaged or do not fit each other; others may be whole."""


class PassedOverWarning(UserWarning):
    """Something in a data set's folder is not read."""


class MissingSampleError(UnreadableSampleError, FileNotFoundError):
    """One of a sample's files is not there."""


NONE = torch.zeros(0, 0, dtype=torch.bool)
"""Stands for void and crowds that were not given: none, at the image's size."""


@dataclass(frozen=True)
class Sample:
    """One image with whatever truth its data set has.

    `label` is an index into the data set's `classes`, None where the image has no single class.
    `masks` are named by `mask_names` and none is empty; a data set without masks gives none,
    shape (0, H, W). A mask is what stands at its place in `masks`: two may have one name. `part_of`
    says of each mask of which other one it is a part, by that one's place, or None for a whole
    object; by default all are whole. `path` is the image's file, or a stable identifier where it
    is generated.

    What the truth leaves open, by default nothing: `void` are pixels that were given to nothing,
    such as the seam about VOC's objects; `crowds` are regions, none of them empty, that hold many
    objects which were not told apart, such as COCO's. No score counts either against a prediction.
    """

    image: UInt8[Tensor, "3 H W"]
    label: int | None
    masks: Bool[Tensor, "m H W"]
    mask_names: tuple[str, ...]
    path: str
    void: Bool[Tensor, "H W"] = NONE
    crowds: Bool[Tensor, "k H W"] = NONE
    part_of: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.part_of:
            object.__setattr__(self, "part_of", (None,) * len(self.masks))
        if len(self.part_of) != len(self.masks) or any(
            whole is not None and not (0 <= whole < len(self.masks) and whole != place)
            for place, whole in enumerate(self.part_of)
        ):
            raise ValueError(
                f"{self.path}: part_of={self.part_of} must hold, for each of the {len(self.masks)} "
                "masks, the place of another mask of this sample, or None"
            )
        for place in range(len(self.part_of)):
            above, steps = self.part_of[place], 0
            while above is not None and steps < len(self.part_of):
                above, steps = self.part_of[above], steps + 1
            if above is not None:
                raise ValueError(
                    f"{self.path}: part_of={self.part_of} makes mask {place} a part of itself"
                )
        size = self.image.shape[1:]
        for name, shape in (("void", size), ("crowds", (0, *size))):
            if getattr(self, name) is NONE:
                object.__setattr__(self, name, torch.zeros(shape, dtype=torch.bool))

    @property
    def ignored(self) -> Bool[Tensor, "H W"]:
        """The pixels of which nothing is decided: void, or in a crowd."""
        return self.void | self.crowds.any(0)


class SampleDataset(Dataset[Sample]):
    """A map-style data set of samples, made or decoded only when asked for.

    `classes` are the names that labels point into, or those that masks of an image without a
    single class may have. `image_size` is the side of the images in pixels, None where they
    keep their own sizes.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    image_size: int | None
    seed: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def check(self, index: int) -> int:
        """`index` counted from the front; IndexError where it lies outside."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)} in {self.name}, split {self.split!r}")
        return index % len(self)

    def files(self) -> Iterable[Path]:
        """All files that the samples are read from, none where they are generated."""
        return ()

    def coco_image(self, index: int) -> tuple[int, int, int]:
        """The id by which COCO's files call item `index`, its height and its width in pixels."""
        return self.check(index), *self[index].image.shape[1:]


Samples = str | SampleDataset | Sequence[Sample] | Sequence[Any] | Tensor | np.ndarray
"""What `as_samples` takes: a data set, its name, or a list of its samples or of images."""
