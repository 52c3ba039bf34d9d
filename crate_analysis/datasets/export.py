"""Writing a data set to disk in the layouts of VOC and COCO.

Pictures are written to a temporary name and moved, so a file that exists is whole. The list of
the split is written last: with it the export is finished and is not done again; without it an
interrupted export goes on where it stopped. JPEG loses a little of each picture; with
`image_format="png"` the copy has the very same pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from crate_analysis.bars import bar

from .coco import YEAR, encode, run_lengths
from .sample import Sample, SampleDataset
from .voc import LISTS, PALETTE, VOID


def export_voc(
    dataset: SampleDataset,
    root: str | Path,
    image_format: str = "jpg",
    border: int = 0,
    progress: bool = True,
) -> None:
    """Write a data set as VOC2012 holds its segmentation part, classes in `labelmap.txt`.

    `border` is the width in pixels of the void seam around each instance; VOC has about 5. What
    the truth leaves open (`Sample.ignored`) is void, too.
    ValueError where `root` holds the same split of something else.
    """
    root = Path(root)
    listing = root / LISTS / f"{dataset.split}.txt"
    if _begin(dataset, root, listing, {"image_format": image_format, "border": border}):
        return
    names = [f"{dataset.split}_{index:06d}" for index in range(len(dataset))]
    labels = ["background", *dataset.classes]
    _write_text(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\n"
        + "".join(
            f"{label}:{r},{g},{b}::\n" for label, (r, g, b) in zip(labels, PALETTE, strict=False)
        ),
    )
    for index, name in enumerate(bar(names, "VOC", shown=progress)):
        notes = root / "Annotations" / f"{name}.xml"
        if notes.exists():
            continue
        sample = dataset[index]
        instances = _instances(dataset, sample)
        semantic, instance = _index_maps(dataset, sample, instances, border)
        _write_picture(root / "JPEGImages" / f"{name}.{image_format}", sample)
        _write_indices(root / "SegmentationClass" / f"{name}.png", semantic)
        _write_indices(root / "SegmentationObject" / f"{name}.png", instance)
        _write_text(notes, _annotation(f"{name}.{image_format}", sample, instances))
    _write_text(listing, "".join(f"{name}\n" for name in names))


def export_coco(
    dataset: SampleDataset, root: str | Path, image_format: str = "jpg", progress: bool = True
) -> None:
    """Write a data set as COCO holds its instances, with run lengths as segmentation.

    Crowds, whose class a sample does not say, are of the first category. COCO has no void pixels:
    they become background.

    ValueError where `root` holds the same split of something else.
    """
    root = Path(root)
    listing = root / "annotations" / f"instances_{dataset.split}{YEAR}.json"
    if _begin(dataset, root, listing, {"image_format": image_format}):
        return
    journal = listing.with_suffix(".json.part")
    records = _resume(journal)
    rest = range(len(records), len(dataset))
    with journal.open("a", encoding="utf-8") as lines:
        for index in bar(rest, "COCO", shown=progress):
            sample = dataset[index]
            name = f"{index:012d}.{image_format}"
            _write_picture(root / f"{dataset.split}{YEAR}" / name, sample)
            records.append(_record(dataset, sample, index, name))
            lines.write(json.dumps(records[-1]) + "\n")
            lines.flush()
    annotations = [note for record in records for note in record["annotations"]]
    content = {
        "info": {"description": f"{dataset.name}, {dataset.split}"},
        "images": [record["image"] for record in records],
        "annotations": [note | {"id": number} for number, note in enumerate(annotations, 1)],
        "categories": [
            {"id": number, "name": name, "supercategory": "object"}
            for number, name in enumerate(dataset.classes, 1)
        ],
    }
    _write_text(listing, json.dumps(content))
    journal.unlink()


def _begin(dataset: SampleDataset, root: Path, listing: Path, options: dict) -> bool:
    """Note what the export is of, or check that it is the same; whether it is finished already."""
    if options["image_format"] not in ("jpg", "png"):
        raise ValueError(f"image_format must be 'jpg' or 'png', got {options['image_format']!r}")
    content = {
        "dataset": dataset.name,
        "items": len(dataset),
        "image_size": dataset.image_size,
        "seed": dataset.seed,
        **options,
    }
    note = listing.with_suffix(".export")
    found = note.read_text(encoding="utf-8") if note.exists() else json.dumps(content)
    if json.loads(found) != content:
        raise ValueError(
            f"{root} holds another export of split {dataset.split!r} ({found}): "
            "choose another folder"
        )
    if listing.exists() and not note.exists():
        raise ValueError(f"{listing} was not written by an export: choose another folder")
    _write_text(note, json.dumps(content))
    return listing.exists()


def _resume(journal: Path) -> list[dict]:
    """The records of an interrupted export; a last line that was cut off is dropped."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().split(b"\n")[:-1]
    _write_text(journal, "".join(line.decode() + "\n" for line in lines))
    return [json.loads(line) for line in lines]


def _instances(dataset: SampleDataset, sample: Sample) -> list[tuple[str, Bool[Tensor, "H W"]]]:
    """The objects in a picture: its one labelled animal, or else all that its masks name."""
    if sample.label is not None:
        return [(dataset.classes[sample.label], mask) for mask in sample.masks[:1]]
    return list(zip(sample.mask_names, sample.masks, strict=True))


def _index_maps(
    dataset: SampleDataset,
    sample: Sample,
    instances: list[tuple[str, Bool[Tensor, "H W"]]],
    border: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Class and instance at each pixel, (H, W) each."""
    semantic = np.zeros(sample.image.shape[1:], np.uint8)
    instance = np.zeros_like(semantic)
    for number, (name, mask) in enumerate(instances, 1):
        semantic[mask.numpy()] = dataset.classes.index(name) + 1
        instance[mask.numpy()] = number
    if border:
        grown = [_extreme(instance, border, np.maximum), _extreme(instance, border, np.minimum)]
        seam = grown[0] != grown[1]
        semantic[seam] = instance[seam] = VOID
    ignored = sample.ignored.numpy()
    semantic[ignored] = instance[ignored] = VOID
    return semantic, instance


def _extreme(values: np.ndarray, width: int, pick: np.ufunc) -> np.ndarray:
    """The largest or smallest value in the square window of `width` pixels around each pixel."""
    reach = width // 2
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if k == axis else (0, 0) for k in (0, 1)], "edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis)
        values = pick.reduce(windows, -1)
    return values


def _annotation(
    filename: str, sample: Sample, instances: list[tuple[str, Bool[Tensor, "H W"]]]
) -> str:
    height, width = sample.image.shape[1:]
    tree = ElementTree.Element("annotation")

    def put(parent: ElementTree.Element, values: dict[str, object]) -> None:
        for key, value in values.items():
            ElementTree.SubElement(parent, key).text = str(value)

    put(tree, {"folder": "VOC2012", "filename": filename})
    put(ElementTree.SubElement(tree, "source"), {"image": sample.path})
    put(ElementTree.SubElement(tree, "size"), {"width": width, "height": height, "depth": 3})
    put(tree, {"segmented": 1})
    for name, mask in instances:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        thing = ElementTree.SubElement(tree, "object")
        put(thing, {"name": name, "truncated": 0, "difficult": 0})
        put(
            ElementTree.SubElement(thing, "bndbox"),
            {
                "xmin": int(columns[0]) + 1,
                "ymin": int(rows[0]) + 1,
                "xmax": int(columns[-1]) + 1,
                "ymax": int(rows[-1]) + 1,
            },
        )
    ElementTree.indent(tree)
    return ElementTree.tostring(tree, encoding="unicode") + "\n"


def _record(dataset: SampleDataset, sample: Sample, index: int, name: str) -> dict:
    height, width = sample.image.shape[1:]
    annotations = []
    instances = [(name, mask, 0) for name, mask in _instances(dataset, sample)]
    crowds = [(dataset.classes[0], mask, 1) for mask in sample.crowds]
    for label, mask, is_crowd in [*instances, *crowds]:
        segmentation = encode(mask)
        annotations.append(
            {
                "image_id": index,
                "category_id": dataset.classes.index(label) + 1,
                "segmentation": segmentation,
                "area": int(mask.sum()),
                "bbox": run_lengths().toBbox(segmentation).tolist(),
                "iscrowd": is_crowd,
            }
        )
    image = {"id": index, "file_name": name, "height": height, "width": width}
    return {"image": image, "annotations": annotations}


def _write_picture(path: Path, sample: Sample) -> None:
    picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    _write(path, lambda file: picture.save(file, **_ENCODINGS[path.suffix]))


_ENCODINGS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 95},
    ".png": {"format": "PNG"},
}


def _write_indices(path: Path, indices: np.ndarray) -> None:
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([value for colour in PALETTE for value in colour])
    _write(path, lambda file: picture.save(file, format="PNG"))


def _write_text(path: Path, text: str) -> None:
    _write(path, lambda file: file.write_text(text, encoding="utf-8"))


def _write(path: Path, put: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    put(temporary)
    os.replace(temporary, path)
