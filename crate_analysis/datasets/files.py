"""Pictures on disk: reading, resizing, choosing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .sample import MissingSampleError, UnreadableSampleError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}


def read_picture(path: Path) -> Image.Image:
    """An upright RGB picture from any mode: grey, 16 bits, CMYK, palette, transparency on white."""
    picture = _open(path)
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture, np.float64)
        full = 65535.0 if picture.mode.startswith("I") else max(float(values.max()), 1.0)
        picture = Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.new("RGBA", layer.size, "white")
        picture.alpha_composite(layer)
    return picture.convert("RGB")


def read_indices(path: Path) -> np.ndarray:
    """The palette indices (H, W) of an indexed picture, uint8."""
    picture = _open(path)
    if picture.mode not in ("P", "L"):
        raise UnreadableSampleError(
            f"{path} holds no palette indices but mode {picture.mode}: keep masks as palette PNGs"
        )
    return np.asarray(picture)


def _open(path: Path) -> Image.Image:
    """A decoded, upright picture; one line of error where there is none."""
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise MissingSampleError(f"{path} is missing: the data set is incomplete") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableSampleError(
            f"{path} cannot be read as a picture ({reason}): delete or replace the file"
        ) from None


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
