"""PASCAL VOC's segmentation, by class and by object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from crate_analysis.names import nearest

from . import files
from .files import Colour
from .sample import Sample, SampleDataset, UnreadableSampleError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
BACKGROUND, VOID = 0, 255
LISTS = "ImageSets/Segmentation"


def voc_palette() -> list[Colour]:
    """VOC's 256 colours: the bits of the index, dealt out to red, green and blue."""
    colours = []
    for index in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append((colour[0], colour[1], colour[2]))
    return colours


BLACK = (0, 0, 0)
PALETTE = voc_palette()


class LabelMap(NamedTuple):
    """What the values and the colours of masks mean: numbers of classes from 1, or background."""

    classes: tuple[str, ...]
    by_value: dict[int, int] | None
    """None where only colours tell."""
    by_colour: dict[Colour, int]
    """Empty where only values tell."""
    source: str


VOC_LABELS = LabelMap(
    CLASSES,
    {k: k for k in range(len(CLASSES) + 1)},
    {colour: k for k, colour in enumerate(PALETTE[: len(CLASSES) + 1])},
    "VOC",
)


class _Item(NamedTuple):
    name: str
    image: Path | None
    mask: Path | None
    """Where a list names the files themselves."""


class Voc(SampleDataset):
    """VOC's images with one mask for each class in the image, and with its void pixels.

    ROOT is the folder that holds `JPEGImages`, or one above it as the archive unpacks. A list of
    the split holds one name a line, or the paths of image and mask from ROOT on.

    The classes are VOC's twenty, unless a `labelmap.txt` at ROOT names others, one `name:r,g,b::` a
    line; its background is what is coloured 0,0,0. A mask that has colours is read by them, and one
    without, whose values are grey, by its values: those of VOC, or the lines of the label map from
    0 on. Colours and values that stand for no class are refused.

    Masks belong to the pixels as the image's file stores them; only where masks and image are of
    one size when it is turned upright is it turned.
    """

    name = "voc"

    def __init__(self, root: str, split: str, image_size: int | None, limit: int | None, seed: int):
        self.split = split
        self.image_size = image_size
        self.seed = seed
        base = files.root(root, "give the folder that holds JPEGImages")
        inner = (base, base / "VOC2012", base / "VOCdevkit" / "VOC2012")
        self.root = next((path for path in inner if (path / "JPEGImages").is_dir()), base)
        files.folder(self.root / "JPEGImages", "this is no VOC folder")
        self.listing = _find_list(self.root, split)
        items = [_parse(line, self.root, self.listing) for line in files.read_lines(self.listing)]
        if not items:
            raise ValueError(
                f"{self.listing} lists no images: restore it from the data set's archive"
            )
        self.items = [items[k] for k in files.subset(len(items), limit, seed)]
        labelmap = self.root / "labelmap.txt"
        self.labels = VOC_LABELS
        if labelmap.exists():
            self.labels = read_labelmap(files.file(labelmap, "make it a text file"))
        self.classes = self.labels.classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[self.check(index)]
        numbers, names = self._truth(item)
        path = self._image(item)
        size = numbers.shape[::-1]
        image = files.read_image(path, size)
        if image.size != size:
            raise UnreadableSampleError(
                f"{path} is not of the size of its masks, {size[0]} x {size[1]} pixels: "
                "restore both from the archive"
            )
        planes = np.array(list(names), np.uint8).reshape(-1, 1, 1)
        return files.to_sample(
            path,
            image,
            self.image_size,
            masks=torch.from_numpy(numbers == planes),
            names=list(names.values()),
            void=torch.from_numpy(numbers == VOID),
            crowds=torch.zeros((0, *numbers.shape), dtype=torch.bool),
        )

    def files(self) -> Iterator[Path]:
        """The list, the label map, and each image with its masks."""
        yield from (self.listing, self.root / "labelmap.txt")
        for item in self.items:
            yield self._image(item)
            yield from self._masks(item)

    def _image(self, item: _Item) -> Path:
        return item.image or files.named(
            self.root / "JPEGImages", item.name, ".jpg", ".jpeg", ".png"
        )

    def _masks(self, item: _Item) -> list[Path]:
        return [item.mask or files.named(self.root / "SegmentationClass", item.name, ".png")]

    def _truth(self, item: _Item) -> tuple[UInt8[np.ndarray, "H W"], dict[int, str]]:
        """The number that each pixel has, and which numbers are masks, with their classes."""
        path = self._masks(item)[0]
        values, colours = files.read_mask(path)
        table = np.zeros(256, np.uint8)
        for value in np.unique(values).tolist():
            table[value] = _number(value, colours, self.labels, path)
        if colours is None and set(np.unique(values).tolist()) in ({0, VOID}, {VOID}):
            raise UnreadableSampleError(
                f"{path} holds only the values 0 and 255, of which 255 is void: "
                "save a binary mask as 0 and the number of its class"
            )
        numbers = table[values]
        return numbers, {k: self.classes[k - 1] for k in _present(numbers)}


class VocObjects(Voc):
    """VOC's images with one mask for each object, named by the class of most of its pixels."""

    name = "voc-objects"

    def _masks(self, item: _Item) -> list[Path]:
        return [
            *super()._masks(item),
            files.named(self.root / "SegmentationObject", item.name, ".png"),
        ]

    def _truth(self, item: _Item) -> tuple[UInt8[np.ndarray, "H W"], dict[int, str]]:
        classes, class_names = super()._truth(item)
        path = self._masks(item)[1]
        values, colours = files.read_mask(path)
        if values.shape != classes.shape:
            raise UnreadableSampleError(
                f"{path} is not of the size of its namesake in SegmentationClass: "
                "restore both from the archive"
            )
        objects = _objects(values, colours, path)
        names = {}
        for k in _present(objects):
            votes = np.bincount(classes[objects == k], minlength=VOID + 1)
            votes[[BACKGROUND, VOID]] = 0
            if not votes.any():
                raise UnreadableSampleError(
                    f"{path} has object {k} where its namesake in SegmentationClass has no class: "
                    "restore both from the archive"
                )
            names[k] = class_names[int(votes.argmax())]
        if class_names and not names:
            raise UnreadableSampleError(
                f"{path} has no object, but its namesake in SegmentationClass has classes: "
                "number the objects from 1; 0 is background and 255 void"
            )
        return objects, names


def _number(value: int, colours: dict[int, Colour] | None, labels: LabelMap, path: Path) -> int:
    """The class of a value in a mask, BACKGROUND or VOID; UnreadableSampleError for none."""
    if colours is not None and labels.by_colour:
        colour = colours[value]
        if colour in labels.by_colour:
            return labels.by_colour[colour]
        if colour == PALETTE[VOID] or (value == VOID and colour == (255, 255, 255)):
            return VOID
        shown = ",".join(map(str, colour))
        raise UnreadableSampleError(
            f"{path} has pixels coloured {shown}, which is no class of {labels.source}: "
            f"write the class as 'name:{shown}::' into labelmap.txt"
        )
    if value == VOID:
        return VOID
    if labels.by_value is None:
        raise UnreadableSampleError(
            f"{path} has no colours, but background is not the first in {labels.source}: "
            "write 'background:0,0,0::' there first, or save masks with a palette"
        )
    if value not in labels.by_value:
        raise UnreadableSampleError(
            f"{path} has class {value} of {len(labels.classes)}: name the classes in labelmap.txt"
        )
    return labels.by_value[value]


def _objects(
    values: UInt8[np.ndarray, "H W"], colours: dict[int, Colour] | None, path: Path
) -> UInt8[np.ndarray, "H W"]:
    """The number of the object at each pixel, 0 for none and 255 for void."""
    if colours is None or all(colours[k] == PALETTE[k] for k in colours):
        return values
    table = np.zeros(256, np.uint8)
    table[[value for value, colour in colours.items() if colour == PALETTE[VOID]]] = VOID
    objects = [k for k, colour in colours.items() if colour not in (PALETTE[VOID], BLACK)]
    free = sorted(set(range(1, VOID)) - set(objects))
    if len(set(objects) - {BACKGROUND, VOID}) + len(free) < len(objects):
        raise UnreadableSampleError(f"{path} has more than 254 objects, which cannot be told apart")
    for value in objects:
        table[value] = free.pop(0) if value in (BACKGROUND, VOID) else value
    return table[values]


def _find_list(root: Path, split: str) -> Path:
    """The list of a split; FileNotFoundError where there is none."""
    lists = files.folder(root / LISTS, "only VOC's segmentation part can be read")
    present = sorted(path.stem for path in lists.glob("*.txt"))
    near = nearest(split, present)
    hint = f", did you mean {near!r}?" if near and near != split else ""
    return files.file(
        lists / f"{split}.txt", f"the splits there are {', '.join(present) or 'none'}{hint}"
    )


def _parse(line: str, root: Path, listing: Path) -> _Item:
    """A line of a list: a name, or the paths of an image and its mask."""
    words = line.split()
    if len(words) == 2 and all(Path(word).suffix.lower() in files.suffixes() for word in words):
        image, mask = (files.inside(root, word.lstrip("/"), listing) for word in words)
        return _Item(image.stem, image, mask)
    name = line
    if Path(line).suffix.lower() in files.suffixes():
        name = line[: -len(Path(line).suffix)]
    return _Item(files.inside(root, name, listing).relative_to(root).as_posix(), None, None)


def read_labelmap(path: Path) -> LabelMap:
    """The classes of a label map, and their values and colours.

    Raises ValueError for one that names no class, a class or a colour twice, or colours for some
    lines only.
    """
    names: list[str] = []
    colours: list[Colour | None] = []
    for line in files.read_lines(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        names.append(name.strip())
        colours.append(_read_colour(rest.partition(":")[0].strip(), line, path))
    known = [colour for colour in colours if colour is not None]
    for what, found in (("class", names), ("colour", known)):
        if doubled := [one for k, one in enumerate(found) if one in found[:k]]:
            shown = doubled[0] if what == "class" else ",".join(map(str, doubled[0]))
            raise ValueError(f"{path} has the {what} {shown} twice: give each class its own")
    if known and len(known) < len(names):
        raise ValueError(
            f"{path} has colours for {len(known)} of {len(names)} classes: "
            "write 'name:r,g,b::' for each"
        )
    if not known:
        return _label_map(names, 0, {}, path)
    background = known.index(BLACK) if BLACK in known else None
    return _label_map(names, background, dict(zip(known, range(len(known)), strict=True)), path)


def _label_map(
    names: list[str], background: int | None, lines: dict[Colour, int], path: Path
) -> LabelMap:
    """Lines as classes: background and void are none."""
    void = lines.get(PALETTE[VOID])
    classes = [k for k in range(len(names)) if k not in (background, void)]
    if not classes:
        raise ValueError(
            f"{path} names no class: write one 'name:r,g,b::' a line, background first"
        )
    if len(classes) >= VOID:
        raise ValueError(f"{path} names {len(classes)} classes: 254 is the most")
    number = {line: k for k, line in enumerate(classes, 1)}
    meaning = [
        BACKGROUND if line == background else VOID if line == void else number[line]
        for line in range(len(names))
    ]
    return LabelMap(
        tuple(names[k] for k in classes),
        dict(enumerate(meaning)) if background == 0 else None,
        {BLACK: BACKGROUND} | {colour: meaning[line] for colour, line in lines.items()}
        if lines
        else {},
        str(path),
    )


def _read_colour(text: str, line: str, path: Path) -> Colour | None:
    if not text:
        return None
    try:
        red, green, blue = (int(value) for value in text.split(","))
    except ValueError:
        red = green = blue = -1
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{path} has the line {line!r}: write 'name:r,g,b::' with 0 to 255 each")
    return red, green, blue


def _present(numbers: UInt8[np.ndarray, "H W"]) -> list[int]:
    return [k for k in np.unique(numbers).tolist() if k not in (BACKGROUND, VOID)]
