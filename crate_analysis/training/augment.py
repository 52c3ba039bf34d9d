"""Multi-crop augmentation (Caron et al. 2021, arXiv 2104.14294, Sec. 3.1 and appendix), by kornia.

Two global crops of an image and several local ones, each recoloured at random. Probabilities are
those of DINO, the two global crops differing as in BYOL (Grill et al. 2020). Blur is scaled down
with the images, from 224 pixels to about a third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

BLOCK = 16
"""Images that share a state of the random generator."""
BLUR_KERNEL = 5
BLUR_SIGMA = (0.1, 1.0)
"""Pixels."""


class Views(NamedTuple):
    """Crops of the same images, uint8 as these were."""

    global_crops: UInt8[Tensor, "2 b 3 H W"]
    local_crops: UInt8[Tensor, "v b 3 h w"]


class MultiCrop:
    """Draws views of images; the same seeds draw the same ones, however a batch is divided.

    Parameters
    ----------
    global_size, local_size : sides of the crops after resizing, pixels.
    n_local : how many local crops of each image.
    global_scale, local_scale : least and greatest share of the image's area that a crop shows.
    jitter : strength of the change of colours; 1 is DINO's (brightness and contrast up to 0.4,
        saturation 0.2, hue 0.1).
    grey : share of the views that lose their colour, and of the second global crops that are
        solarised.

    Raises ModuleNotFoundError where the optional dependency is missing.
    """

    def __init__(
        self,
        global_size: int,
        local_size: int,
        n_local: int,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.1, 0.4),
        jitter: float = 1.0,
        grey: float = 0.2,
    ) -> None:
        try:
            from kornia import augmentation as kornia
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "multi-crop augmentation needs kornia: pip install 'crate-analysis[dino]'"
            ) from None

        def view(
            size: int, scale: tuple[float, float], blur: float, solarize: float
        ) -> nn.Sequential:
            return nn.Sequential(
                kornia.RandomResizedCrop((size, size), scale=scale),
                kornia.RandomHorizontalFlip(p=0.5),
                kornia.ColorJitter(0.4 * jitter, 0.4 * jitter, 0.2 * jitter, 0.1 * jitter, p=0.8),
                kornia.RandomGrayscale(p=grey),
                kornia.RandomGaussianBlur(BLUR_KERNEL, BLUR_SIGMA, p=blur),
                kornia.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=solarize),
            )

        self._global = (
            view(global_size, global_scale, blur=1.0, solarize=0.0),
            view(global_size, global_scale, blur=0.1, solarize=grey),
        )
        self._local = view(local_size, local_scale, blur=0.5, solarize=0.0)
        self._n_local = n_local

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "b 3 H W"],
        start: int,
        seed_of: Callable[[int], int],
        partners: UInt8[Tensor, "b 3 H W"] | None = None,
    ) -> Views:
        """Views of the images that stand in their batch from position `start` on.

        `partners` are other images of the same things: the second global crop, and every other
        local one, is then of them. `seed_of(block)` seeds the draw of the batch's images
        `16 block` to `16 block + 15`.
        """
        # kornia draws for all images of a call at once, so each call is of one whole block:
        # positions that are not among these images are filled with black ones
        offset = start % BLOCK
        n_blocks = -(-(offset + len(images)) // BLOCK)
        both = torch.stack([images, images if partners is None else partners])
        padded = images.new_zeros(2, n_blocks * BLOCK, *images.shape[1:])
        padded[:, offset : offset + len(images)] = both
        views = [
            self._augment(block.float() / 255, seed_of(start // BLOCK + index))
            for index, block in enumerate(padded.split(BLOCK, dim=1))
        ]
        here = slice(offset, offset + len(images))
        return Views(*(torch.cat(crops, dim=1)[:, here] for crops in zip(*views, strict=True)))

    def _augment(self, blocks: Tensor, seed: int) -> Views:
        with torch.random.fork_rng(devices=[]):  # kornia draws on the CPU, from the global state
            torch.manual_seed(seed)
            global_crops = torch.stack(
                [draw(block) for draw, block in zip(self._global, blocks, strict=True)]
            )
            local_crops = blocks.new_zeros(0, BLOCK, 3, 1, 1)
            if self._n_local:
                sources = [blocks[k % 2] for k in range(self._n_local)]
                local_crops = self._local(torch.cat(sources)).unflatten(0, (self._n_local, BLOCK))
        return Views(_to_uint8(global_crops), _to_uint8(local_crops))


def _to_uint8(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
