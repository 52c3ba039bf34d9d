"""Images and their truth as the view takes them."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from jaxtyping import Bool, UInt8
from torch import Tensor

from crate_analysis.datasets import Sample, SampleDataset
from crate_analysis.datasets.sample import UnreadableSampleError


def one_of_each(dataset: SampleDataset, n_images: int) -> list[Sample]:
    """The first image of each label, in the order of the data set, then the first of the rest.

    A data set without labels gives its first images. Images that cannot be read are left out.
    Raises ValueError for fewer than one image, and where there is none that can be read.
    """
    if n_images < 1:
        raise ValueError(f"n_images={n_images} must be at least 1")
    first: dict[int | None, Sample] = {}
    others: list[Sample] = []
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except UnreadableSampleError:
            continue
        if sample.label is None or sample.label in first:
            others.append(sample)
        else:
            first[sample.label] = sample
        if len(first) == n_images or (not first and len(others) == n_images):
            break
        if index >= 20 * n_images and len(first) + len(others) >= n_images:
            break  # some labels are rare
    if not first and not others:
        raise ValueError("the data set holds no image that can be read; check its folder and split")
    return [*first.values(), *others][:n_images]


def image_record(sample: Sample, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the view knows of an image but for its pixels: name, label, masks by run lengths.

    `classes` are the names of the labels; where there are none, the image is called by its file.
    """
    if sample.label is not None and sample.label < len(classes):
        name = classes[sample.label]
    else:
        name = sample.path.rsplit("/", 1)[-1]
    masks = [
        {"name": mask_name, "runs": run_lengths(mask)}
        for mask_name, mask in zip(sample.mask_names, sample.masks, strict=True)
    ]
    return {"name": name, "label": sample.label, "masks": masks}


def run_lengths(mask: Bool[Tensor, "H W"]) -> list[int]:
    """How many pixels, row by row, are out of the mask, then in it, then out of it, and so on.

    >>> import torch
    >>> run_lengths(torch.tensor([[True, True, False]]))
    [0, 2, 1]
    """
    values = mask.flatten().tolist()
    runs = [len(list(run)) for _, run in groupby(values)]
    return [0, *runs] if values and values[0] else runs


def pixel_bytes(image: UInt8[Tensor, "3 H W"]) -> bytes:
    """Pixel by pixel, each as red, green, blue."""
    return image.permute(1, 2, 0).contiguous().numpy().tobytes()
