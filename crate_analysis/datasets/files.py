"""Pictures on disk: reading, resizing, choosing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from .sample import MissingSampleError, Sample, UnreadableSampleError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}


def read_picture(path: Path, annotated: tuple[int, int] | None = None) -> Image.Image:
    """An RGB picture from any mode: grey, 16 bits, CMYK, palette, transparency on white.

    It stands upright, as its EXIF orientation says; of an animation it is the first frame.
    Annotations, though, count pixels as the file stores them, as the tools of VOC and COCO read
    it: a picture whose stored (width, height) is `annotated` is not turned.

    Raises MissingSampleError, or UnreadableSampleError for a file that is damaged, that is no
    picture, or that has more pixels than Pillow takes for safe.
    """
    with _decoded(path) as stored:
        picture = stored if stored.size == annotated else ImageOps.exif_transpose(stored)
        if picture.mode.startswith(("I", "F")):
            values = np.asarray(picture, np.float64)
            if not np.isfinite(values).all():
                raise ValueError("it holds values that are not finite")
            full = 65535.0 if picture.mode.startswith("I") else max(float(values.max()), 1.0)
            picture = Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8))
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = Image.new("RGBA", layer.size, "white")
            picture.alpha_composite(layer)
        return picture.convert("RGB")


def read_indices(path: Path) -> np.ndarray:
    """The palette indices (H, W) of an indexed picture, uint8, as its file stores them."""
    with _decoded(path) as picture:
        mode, indices = picture.mode, np.array(picture)
    if mode not in ("P", "L"):
        raise UnreadableSampleError(
            f"{path} holds no palette indices but mode {mode}: keep masks as palette PNGs"
        )
    return indices


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """The picture as stored; one line of error where it, or what is done with it, fails."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # it grumbles at what it can read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.load()
                yield file
    except FileNotFoundError:
        raise MissingSampleError(f"{path} is missing: the data set is incomplete") from None
    except Exception as error:  # damaged bytes raise whatever their decoder stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableSampleError(
            f"{path} cannot be read as a picture ({reason}): delete or replace the file"
        ) from None


def to_sample(
    path: Path,
    picture: Image.Image,
    size: int | None,
    masks: Bool[Tensor, "m H W"],
    names: Sequence[str],
    void: Bool[Tensor, "H W"],
    crowds: Bool[Tensor, "k H W"],
) -> Sample:
    """The picture and its truth at size x size; what has no pixel left there is dropped."""
    masks, crowds = stretch_masks(masks, size), stretch_masks(crowds, size)
    kept = masks.flatten(1).any(1)
    return Sample(
        image=to_tensor(stretch(picture, size)),
        label=None,
        masks=masks[kept],
        mask_names=tuple(compress(names, kept.tolist())),
        path=str(path),
        void=stretch_masks(void[None], size)[0],
        crowds=crowds[crowds.flatten(1).any(1)],
    )


def to_tensor(picture: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """The pixels of an RGB picture."""
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def stretch(picture: Image.Image, size: int | None) -> Image.Image:
    """The picture at size x size, whatever its shape, or as it is where `size` is None."""
    if size is None or picture.size == (size, size):
        return picture
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def stretch_masks(masks: Bool[Tensor, "m H W"], size: int | None) -> Bool[Tensor, "m rows columns"]:
    """The nearest pixels of the masks at size x size."""
    if size is None:
        return masks
    height, width = masks.shape[1:]
    centres = (torch.arange(size) + 0.5) / size
    rows, columns = (centres * height).long(), (centres * width).long()
    return masks[:, rows][:, :, columns]


def crop(picture: Image.Image, size: int | None) -> Image.Image:
    """The middle square, its side resized to `size`, or as it is where `size` is None."""
    if size is None:
        return picture
    return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)


def subset(count: int, limit: int | None, seed: int) -> list[int]:
    """Which of `count` items to keep, in order: all, or a random choice of `limit` of them."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(np.random.default_rng(seed).permutation(count)[:limit].tolist())


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold more than space."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: restore it or save it anew") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def named(folder: Path, name: str, *suffixes: str) -> Path:
    """The file of that name with the first of the suffixes that it has, in whichever case."""
    paths = [
        folder / f"{name}{suffix}" for ending in suffixes for suffix in (ending, ending.upper())
    ]
    return next((path for path in paths if path.exists()), paths[0])


def folder(path: Path, hint: str) -> Path:
    """`path`, if it is a folder; else FileNotFoundError with a hint."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: {hint}")
    return path


def file(path: Path, hint: str) -> Path:
    """`path`, if it is a file; else FileNotFoundError with a hint."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {hint}")
    return path
