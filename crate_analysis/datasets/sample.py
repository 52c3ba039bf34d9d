"""What every data set of the library is and yields."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.utils.data import Dataset


class UnreadableSampleError(ValueError):
    """One sample's files are damaged or do not fit each other; others may be whole."""


class MissingSampleError(UnreadableSampleError, FileNotFoundError):
    """One of a sample's files is not there."""


@dataclass(frozen=True)
class Sample:
    """One picture with whatever truth its data set has.

    `label` is an index into the data set's `classes`, None where the picture has no single class.
    `masks` are named by `mask_names` and none is empty; a data set without masks gives none,
    shape (0, H, W). `path` is the picture's file, or a stable identifier where it is generated.
    """

    image: UInt8[Tensor, "3 H W"]
    label: int | None
    masks: Bool[Tensor, "m H W"]
    mask_names: tuple[str, ...]
    path: str


class SampleDataset(Dataset[Sample]):
    """A map-style data set of samples, made or decoded only when asked for.

    `classes` are the names that labels point into, or those that masks of a picture without a
    single class may have. `image_size` is the side of the pictures in pixels, None where they
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

    def coco_image(self, index: int) -> tuple[int, int, int]:
        """The id by which COCO's files call item `index`, its height and its width in pixels."""
        return self.check(index), *self[index].image.shape[1:]


Samples = SampleDataset | Sequence[Sample]
"""A data set, or a list of its samples, which need not be drawn or decoded anew."""
