"""Whatever stands for a data set, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import files
from .load import GENERATED, PACKAGED, READ, load_dataset
from .sample import Sample, SampleDataset, Samples

WANTED = (
    "give a data set's name such as 'creatures' or 'folder:ROOT', a data set, "
    "or a list of samples or of images"
)


class SampleList(SampleDataset):
    """A data set of samples that are at hand already.

    `classes` are what the samples' labels point into, where they have any.
    """

    name = "list"
    split = "all"
    seed = 0

    def __init__(self, samples: Sequence[Sample], classes: Sequence[str] = ()) -> None:
        self.samples = list(samples)
        self.classes = tuple(classes)
        sides = {side for sample in self.samples for side in sample.image.shape[1:]}
        self.image_size = sides.pop() if len(sides) == 1 else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[self.check(index)]


def as_samples(
    data: Samples,
    split: str = "val",
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> SampleDataset:
    """The data set that `data` is, names, or lists.

    Parameters
    ----------
    data : a name as `load_dataset` takes it; a data set, which is given back; or a list (or tuple)
        of `Sample`s or of images, which are then samples without truth. An image is a uint8 tensor
        (3, H, W), as samples hold them, an image of Pillow, a uint8 array (H, W, 3) or (H, W), or
        the path of a file. A uint8 tensor (b, 3, H, W) is a list of its images.
    split, image_size, limit, seed : of `load_dataset`; they apply to a name only.

    Raises TypeError in one line for anything else, and what `load_dataset` raises.

    >>> len(as_samples("creatures", limit=3))
    3
    >>> as_samples([torch.zeros(3, 24, 36, dtype=torch.uint8)])[0].path
    'images[0]'
    """
    if isinstance(data, SampleDataset):
        return data
    if isinstance(data, str):
        return load_dataset(data, split, image_size, limit, seed)
    if isinstance(data, Path):
        raise TypeError(f"{data} is a path: write '{{{'|'.join(READ)}}}:{data}', or {WANTED}")
    if isinstance(data, (Sample, Image.Image)) or (isinstance(data, Tensor) and data.ndim < 4):
        raise TypeError(f"this is one {type(data).__name__}, not several: put it into a list, [x]")
    if isinstance(data, (Tensor, np.ndarray)):
        data = list(data)
    if not isinstance(data, (list, tuple)):
        raise TypeError(f"{type(data).__name__} is no data set: {WANTED}")
    names = [one for one in data if isinstance(one, str) and one.partition(":")[0] in _KINDS]
    if names:
        raise TypeError(f"{names[0]!r} is in a list: measure one data set at a time, without [ ]")
    return SampleList([_sample(one, place) for place, one in enumerate(data)])


_KINDS = (*GENERATED, *PACKAGED, *READ)


def _sample(one: Any, place: int) -> Sample:
    """A member of a list as a sample."""
    if isinstance(one, Sample):
        return one
    path = f"images[{place}]"
    if isinstance(one, (str, Path)):
        path = str(one)
        one = files.read_image(Path(one).expanduser())
    if isinstance(one, Image.Image):
        one = np.asarray(files.to_rgb(one))
    if isinstance(one, np.ndarray) and one.dtype == np.uint8:
        if one.ndim == 2:
            one = np.repeat(one[..., None], 3, 2)
        if one.ndim == 3 and one.shape[2] == 3:
            one = torch.from_numpy(one.transpose(2, 0, 1).copy())
    if not isinstance(one, Tensor):
        kind = f"{one.dtype} array {one.shape}" if isinstance(one, np.ndarray) else type(one)
        kind = kind if isinstance(kind, str) else kind.__name__
        raise TypeError(f"item {place} of the list is {kind}: {WANTED}")
    if one.dtype != torch.uint8:
        raise TypeError(
            f"item {place} of the list holds {one.dtype}: give images as uint8, 0 to 255, "
            "before they are normalised"
        )
    if one.ndim != 3 or one.shape[0] != 3 or not one.numel():
        raise TypeError(
            f"item {place} of the list is of shape {tuple(one.shape)}: an image is (3, H, W)"
        )
    image = one.cpu()
    masks = torch.zeros((0, *image.shape[1:]), dtype=torch.bool)
    return Sample(image=image, label=None, masks=masks, mask_names=(), path=path)
