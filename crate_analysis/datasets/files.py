"""Images on disk: finding, reading, resizing, choosing."""

from __future__ import annotations

import functools
import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from .sample import MissingSampleError, Sample, UnreadableSampleError

FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM"),
    *("QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
"""What Pillow may read a file as, whatever its name. It decodes these itself; others, such as EPS,
would start another program."""


@functools.cache
def suffixes() -> frozenset[str]:
    """The endings of files of these formats, in lower case."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in FORMATS)


@functools.cache
def _formats() -> list[str]:
    Image.init()  # lists the formats of this build; MPO is opened as a JPEG
    return [name for name in FORMATS if name in Image.OPEN]


def read_image(path: Path, annotated: tuple[int, int] | None = None) -> Image.Image:
    """An RGB image from any mode: grey, 16 bits, CMYK, palette, transparency on white.

    It stands upright, as its EXIF orientation says; of an animation it is the first frame.
    Annotations, though, count pixels as the file stores them, as the tools of VOC and COCO read
    it: an image whose stored (width, height) is `annotated` is not turned.

    Raises MissingSampleError, or UnreadableSampleError for a file that is damaged, that is no
    image, or that has more pixels than Pillow takes for safe.
    """
    with _decoded(path) as stored:
        return to_rgb(stored, annotated)


def to_rgb(stored: Image.Image, annotated: tuple[int, int] | None = None) -> Image.Image:
    """`read_image` of an image that is open already. Raises ValueError for values not finite."""
    image = stored if stored.size == annotated else ImageOps.exif_transpose(stored)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite")
        full = 65535.0 if image.mode.startswith("I") else max(float(values.max()), 1.0)
        image = Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image.convert("RGB")


Colour = tuple[int, int, int]


def read_mask(path: Path) -> tuple[UInt8[np.ndarray, "H W"], dict[int, Colour] | None]:
    """A number at each pixel, and the colour of each number that is there.

    The numbers are those of the file where it has a palette or is grey, and run from 0 in the
    order of their colours where it is RGB. The colours are None where the file has none: in a grey
    image, or with a palette of the greys 0 to 255 in order.
    """
    with _decoded(path) as image:
        mode, values = image.mode, np.array(image)
        palette = np.array(image.getpalette("RGB") or (), np.uint8) if mode == "P" else None
    if mode == "L":
        return values, None
    if palette is not None:
        table = np.zeros((256, 3), np.uint8)
        table[: len(palette) // 3] = palette.reshape(-1, 3)
        found = np.unique(values)
        if (table[found] == found[:, None]).all():
            return values, None
        return values, {int(k): _colour(table[k]) for k in found}
    if mode == "RGB" or (mode == "RGBA" and (values[..., 3] == 255).all()):
        packed = values[..., :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        found, numbers = np.unique(packed, return_inverse=True)
        if len(found) <= 256:
            colours = {
                k: ((c := int(one)) >> 16, c >> 8 & 255, c & 255) for k, one in enumerate(found)
            }
            return numbers.reshape(packed.shape).astype(np.uint8), colours
        reason = f"{len(found)} colours"
    else:
        reason = f"mode {mode}"
    raise UnreadableSampleError(
        f"{path} holds no class at each pixel but {reason}: save masks as PNG with a palette"
    )


def _colour(row: np.ndarray) -> Colour:
    red, green, blue = row.tolist()
    return red, green, blue


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """The image as stored; one line of error where it, or what is done with it, fails."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for ever
            raise ValueError("it is no regular file")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # it grumbles at what it can read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as file:
                file.load()
                yield file
    except FileNotFoundError:
        raise MissingSampleError(f"{path} is missing: the data set is incomplete") from None
    except Exception as error:  # damaged bytes raise whatever their decoder stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableSampleError(
            f"{path} cannot be read as an image ({reason}): delete or replace the file"
        ) from None


def to_sample(
    path: Path,
    image: Image.Image,
    size: int | None,
    masks: Bool[Tensor, "m H W"],
    names: Sequence[str],
    void: Bool[Tensor, "H W"],
    crowds: Bool[Tensor, "k H W"],
) -> Sample:
    """The image and its truth at size x size; what has no pixel left there is dropped."""
    masks, crowds = stretch_masks(masks, size), stretch_masks(crowds, size)
    kept = masks.flatten(1).any(1)
    return Sample(
        image=to_tensor(stretch(image, size)),
        label=None,
        masks=masks[kept],
        mask_names=tuple(compress(names, kept.tolist())),
        path=str(path),
        void=stretch_masks(void[None], size)[0],
        crowds=crowds[crowds.flatten(1).any(1)],
    )


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """The pixels of an RGB image."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def stretch(image: Image.Image, size: int | None) -> Image.Image:
    """The image at size x size, whatever its shape, or as it is where `size` is None."""
    if size is None or image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC)


def stretch_masks(masks: Bool[Tensor, "m H W"], size: int | None) -> Bool[Tensor, "m rows columns"]:
    """The nearest pixels of the masks at size x size."""
    if size is None:
        return masks
    height, width = masks.shape[1:]
    centres = (torch.arange(size) + 0.5) / size
    rows, columns = (centres * height).long(), (centres * width).long()
    return masks[:, rows][:, :, columns]


def crop(image: Image.Image, size: int | None) -> Image.Image:
    """The middle square, its side resized to `size`, or as it is where `size` is None."""
    if size is None:
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


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
        raise ValueError(f"{path} is no text in UTF-8: restore it or save it again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def named(folder: Path, name: str, *endings: str) -> Path:
    """The file of that name with the first of the endings that it has, in whichever case."""
    paths = [folder / f"{name}{end}" for ending in endings for end in (ending, ending.upper())]
    return next((path for path in paths if path.exists()), paths[0])


def inside(folder: Path, name: str, source: Path) -> Path:
    """The file of that relative name, as `source` gives it, in `folder`.

    Raises UnreadableSampleError for a name that is absolute or leads out of the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match("[A-Za-z]:", name) or not parts.name:
        raise UnreadableSampleError(
            f"{source} names a file {name!r} that is not in {folder}: "
            "write the file's name relative to that folder"
        )
    return folder / parts


def root(path: str, hint: str) -> Path:
    """The folder that a data set's name gives, with `~` as the home folder."""
    try:
        return folder(Path(path).expanduser(), hint)
    except RuntimeError:  # of a ~NAME that is nobody's
        raise FileNotFoundError(f"{path} is no folder: there is no such home folder") from None


def folder(path: Path, hint: str) -> Path:
    """`path`, if it is a folder; else FileNotFoundError with a hint."""
    if path.exists() and not path.is_dir():
        raise FileNotFoundError(f"{path} is a file, not a folder: {hint}")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: {hint}")
    return path


def file(path: Path, hint: str) -> Path:
    """`path`, if it is a file; else FileNotFoundError with a hint."""
    if path.exists() and not path.is_file():
        raise FileNotFoundError(f"{path} is no regular file: {hint}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {hint}")
    return path


def folders_in(base: Path) -> list[Path]:
    """The folders in a folder, links to such included, sorted; hidden ones are passed over."""
    with os.scandir(base) as entries:
        names = [one.name for one in entries if not one.name.startswith(".") and _is_folder(one)]
    return [base / name for name in sorted(names)]


class Found:
    """What a search through folders found."""

    def __init__(self) -> None:
        self.images: list[str] = []
        self.passed_over: Counter[str] = Counter()
        """How many other files there are, by their endings."""


CLUTTER = {"thumbs.db", "desktop.ini"}
"""Files that systems leave behind, and nobody misses."""


def find_images(base: Path) -> Found:
    """The images in a folder and in those within, by sorted path, and what else lies there.

    Hidden files and folders are passed over. Links to folders are followed, each folder is read
    once. A link without a target counts, so that it is missed when it is read.
    """
    found = Found()
    _search(str(base), found, {_identity(os.stat(base))})
    found.images.sort(key=lambda path: path.split(os.sep))
    return found


def has_image(base: Path) -> bool:
    """Whether there is any image in a folder or in those within, found as soon as may be."""
    return _search(str(base), Found(), {_identity(os.stat(base))}, first=True)


def _search(base: str, found: Found, seen: set[tuple[int, int]], first: bool = False) -> bool:
    """Add what lies in `base`; whether there is an image. `first` ends at the first one."""
    folders = []
    try:
        entries = os.scandir(base)
    except PermissionError:
        raise ValueError(f"{base} may not be read: change its permissions") from None
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry)
            elif os.path.splitext(entry.name)[1].lower() in suffixes():
                found.images.append(entry.path)
                if first:
                    return True
            elif entry.name.lower() not in CLUTTER:
                found.passed_over[os.path.splitext(entry.name)[1].lower()] += 1
    for entry in folders:
        identity = _identity(entry.stat())
        if identity not in seen:
            seen.add(identity)
            if _search(entry.path, found, seen, first) and first:
                return True
    return bool(found.images)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
