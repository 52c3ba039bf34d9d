"""What every data set of the library yields."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One picture with whatever truth its data set has.

    `label` is an index into the data set's `classes`, None where the picture has no single class.
    `masks` are named by `mask_names`; a data set without masks gives none, shape (0, H, W).
    `path` is the picture's file, or a stable identifier where the picture is generated.
    """

    image: UInt8[Tensor, "3 H W"]
    label: int | None
    masks: Bool[Tensor, "m H W"]
    mask_names: tuple[str, ...]
    path: str
