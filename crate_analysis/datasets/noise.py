"""Images with Gaussian noise on some of their pixels (Yu et al. 2024, Fig. 11 and 12)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .given import as_samples
from .sample import Sample, SampleDataset, Samples, UnreadableSampleError

Where = Literal["everywhere", "objects", "background"]


class Noise(NamedTuple):
    """How much noise, and where."""

    share: float
    """Of the pixels that get noise, in [0, 1]."""
    sd: float
    """Standard deviation of the noise, in grey levels of 0..255."""
    where: Where = "everywhere"
    """Which of the noise is kept: all, that inside the masks, or that outside of them. Pixels that
    the truth leaves open (`Sample.ignored`) are neither inside nor outside."""


class NoisyImages(SampleDataset):
    """Every image of a data set at every noise level, one image's levels in a row.

    Item i k + j is image i at the j-th of k levels. The noise of a image depends on
    (`seed`, i) only: levels share it, so that a higher share of pixels holds those of a lower one
    and a higher deviation is the same noise made larger, and whoever looks at the images, at
    whatever batch size, sees the same. Images are decoded once for all their levels.

    Raises ValueError as `add_noise` does, for no levels, and for `where` that is none of the
    three; UnreadableSampleError, so that `batches` leaves it out, for a image without the masks
    that `where` asks for.
    """

    def __init__(self, dataset: Samples, levels: Sequence[Noise], seed: int = 0) -> None:
        if not levels:
            raise ValueError("levels is empty: give at least one Noise(share, sd)")
        for level in levels:
            _check(level.share, level.sd)
            if level.where not in get_args(Where):
                raise ValueError(
                    f"where={level.where!r} is not one of {', '.join(get_args(Where))}"
                )
        self.dataset = dataset = as_samples(dataset)
        self.levels = tuple(levels)
        self.name, self.split, self.classes = dataset.name, dataset.split, dataset.classes
        self.image_size, self.seed = dataset.image_size, seed
        self._latest: tuple[int, Sample] | None = None

    def __len__(self) -> int:
        return len(self.dataset) * len(self.levels)

    def files(self) -> Iterable[Path]:
        """Those of the images without noise."""
        return self.dataset.files()

    def __getitem__(self, index: int) -> Sample:
        image, level = divmod(self.check(index), len(self.levels))
        if self._latest is None or self._latest[0] != image:
            self._latest = image, self.dataset[image]
        sample, noise = self._latest[1], self.levels[level]
        stream = np.random.SeedSequence((self.seed, image)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(stream[0]))
        noisy = add_noise(sample.image[None], noise.share, noise.sd, generator)[0]
        if noise.where != "everywhere":
            if not len(sample.masks):
                raise UnreadableSampleError(
                    f"{sample.path} has no masks, which noise on {noise.where} needs;"
                    " take where='everywhere'"
                )
            kept = sample.masks.any(0) == (noise.where == "objects")
            noisy = noisy.where(kept & ~sample.ignored, sample.image)
        return replace(sample, image=noisy)


def add_noise(
    images: UInt8[Tensor, "b 3 H W"], share: float, sd: float, generator: torch.Generator
) -> UInt8[Tensor, "b 3 H W"]:
    """The images with `gaussian_noise` added, rounded, and cut to 0..255.

    Cutting takes away noise from dark and bright pixels, the more the stronger the noise: the
    deviation that arrives is smaller than `sd`. The paper says nothing of it; images of 8 bits
    leave no choice.

    Raises ValueError for images that are not uint8, for a share outside [0, 1], and for a
    deviation that is negative or not finite.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}, but noise is in grey levels of uint8 pixels")
    noise = gaussian_noise(tuple(images.shape), share, sd, generator).to(images.device)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def gaussian_noise(
    shape: tuple[int, ...], share: float, sd: float, generator: torch.Generator
) -> Float[Tensor, "b 3 H W"]:
    """What `add_noise` adds: 0 on most pixels, Gaussian on the others, in grey levels.

    In each image exactly `share` of the pixels (rounded) are drawn, without regard to what they
    show; the three channels of a pixel get independent noise. A generator in the same state draws
    the same pixels first and the same noise at any `share` and `sd`.
    """
    _check(share, sd)
    count, _, height, width = shape
    device = generator.device
    order = torch.rand(count, height * width, generator=generator, device=device).argsort(-1)
    chosen = torch.zeros(count, height * width, device=device)
    chosen.scatter_(-1, order[:, : round(share * height * width)], 1.0)
    noise = torch.randn(shape, generator=generator, device=device)
    return sd * noise * chosen.view(count, 1, height, width)


def _check(share: float, sd: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must lie in [0, 1]; 0.5 is half of the pixels")
    if not 0 <= sd < math.inf:
        raise ValueError(f"sd={sd} must be a finite number of grey levels, 0 or more")
