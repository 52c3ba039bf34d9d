"""Writing a data set to disk in the layouts of VOC and COCO.

Images are written to a temporary name and moved, so a file that exists is whole. The list of
the split is written last: with it the export is finished and is not done again; without it an
interrupted export goes on where it stopped. JPEG loses a little of each image; with
`image_format="png"` the copy has the very same pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from crate_analysis.bars import bar
from crate_analysis.writing import (
    DamagedFileError,
    read_sealed,
    seal,
    unseal,
    write_text,
    written_whole,
)

from .coco import YEAR, encode, run_lengths
from .contents import of_files
from .given import as_samples
from .sample import Sample, SampleDataset, Samples
from .voc import LISTS, PALETTE, VOID


def export_voc(
    dataset: Samples,
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
    dataset = as_samples(dataset)
    root = Path(root)
    listing = root / LISTS / f"{dataset.split}.txt"
    if _begin(dataset, root, listing, {"image_format": image_format, "border": border}):
        return
    names = [f"{dataset.split}_{index:06d}" for index in range(len(dataset))]
    labels = ["background", *dataset.classes]
    write_text(
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
        _write_image(root / "JPEGImages" / f"{name}.{image_format}", sample)
        _write_indices(root / "SegmentationClass" / f"{name}.png", semantic)
        _write_indices(root / "SegmentationObject" / f"{name}.png", instance)
        write_text(notes, _annotation(f"{name}.{image_format}", sample, instances))
    write_text(listing, "".join(f"{name}\n" for name in names))


def export_coco(
    dataset: Samples, root: str | Path, image_format: str = "jpg", progress: bool = True
) -> None:
    """Write a data set as COCO holds its instances, with run lengths as segmentation.

    Crowds, whose class a sample does not say, are of the first category. COCO has no void pixels:
    they become background.

    ValueError where `root` holds the same split of something else.
    """
    dataset = as_samples(dataset)
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
            _write_image(root / f"{dataset.split}{YEAR}" / name, sample)
            records.append(_record(dataset, sample, index, name))
            lines.write(seal(records[-1], str(index)) + "\n")
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
    write_text(listing, json.dumps(content))
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
        "files": of_files(dataset),
        **options,
    }
    note = listing.with_suffix(".export")
    found = read_sealed(note) if note.exists() else content
    if found != content:
        raise ValueError(
            f"{root} holds another export of split {dataset.split!r} ({json.dumps(found)}): "
            "choose another folder"
        )
    if listing.exists() and not note.exists():
        raise ValueError(f"{listing} was not written by an export: choose another folder")
    write_text(note, seal(content))
    return listing.exists()


def _resume(journal: Path) -> list[dict]:
    """The records of an interrupted export; a last line that was cut off is dropped."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().decode(errors="replace").split("\n")[:-1]
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(unseal(line, str(number)))
        except ValueError:
            raise DamagedFileError(journal, f"line {number + 1}") from None
    write_text(journal, "".join(f"{line}\n" for line in lines))
    return records


def _instances(dataset: SampleDataset, sample: Sample) -> list[tuple[str, Bool[Tensor, "H W"]]]:
    """The whole objects in an image, each with its class: the image's own, or else its name.

    Parts of objects are left out: neither layout says of what a mask is a part.
    """
    found = []
    for name, mask, whole in zip(sample.mask_names, sample.masks, sample.part_of, strict=True):
        if whole is None:
            label = name if sample.label is None else dataset.classes[sample.label]
            if label not in dataset.classes:
                raise ValueError(
                    f"{sample.path} has an object {label!r}, which is no class of {dataset.name}: "
                    "export a data set whose classes name its masks"
                )
            found.append((label, mask))
    return found


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


def _write_image(path: Path, sample: Sample) -> None:
    image = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
    with written_whole(path) as part:
        image.save(part, **_ENCODINGS[path.suffix])


_ENCODINGS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 95},
    ".png": {"format": "PNG"},
}


def _write_indices(path: Path, indices: np.ndarray) -> None:
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette([value for colour in PALETTE for value in colour])
    with written_whole(path) as part:
        image.save(part, format="PNG")
