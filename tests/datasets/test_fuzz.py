"""Whatever files of COCO, VOC and folders hold: what they say, or one line of what is wrong."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crate_analysis.datasets import load_dataset
from crate_analysis.datasets.coco import decode, encode
from crate_analysis.datasets.sample import PassedOverWarning

pytestmark = pytest.mark.usefixtures("unchecked")
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "/etc/passwd", "0", "1", -1, 0, 1, 1e300, 2**70, "NaN", "\0"]),
    st.lists(st.floats(), max_size=8),
    st.lists(st.lists(st.integers(-9, 99), max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["size", "counts", "id"]), st.integers() | st.text(max_size=5)),
)
SQUARE, COLUMN = [[2, 1, 6, 1, 6, 5, 2, 5]], {"size": [6, 8], "counts": [6, 6, 36]}
CONTENT = {
    "images": [{"id": k, "file_name": f"{k}.png", "height": 6, "width": 8} for k in (1, 2)],
    "categories": [{"id": 3, "name": "cup"}, {"id": 4, "name": "bed"}],
    "annotations": [
        {
            "id": k,
            "image_id": 1 + k % 2,
            "category_id": 3 + k % 2,
            "iscrowd": int(k == 3),
            "segmentation": [[2, 1, 6, 1, 6, 5, 2, 5]]
            if k % 2
            else {"size": [6, 8], "counts": [6, 6, 36]},
        }
        for k in range(1, 5)
    ],
}


def one_line(error: Exception) -> None:
    assert isinstance(error, (ValueError, FileNotFoundError)), repr(error)
    assert str(error) and "\n" not in str(error) and len(str(error)) < 1000


def read_all(spec: str, split: str = "val") -> list:
    """The samples that can be read, each with the classes; all else must be one line."""
    samples = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassedOverWarning)
        try:
            dataset = load_dataset(spec, split)
        except Exception as error:
            one_line(error)
            return []
    list(dataset.files())
    for index in range(len(dataset)):
        try:
            samples.append(dataset[index])
            dataset.coco_image(index)
        except Exception as error:
            one_line(error)
    for sample in samples:
        assert (
            sample.masks.shape[1:] == sample.image.shape[1:]
            and sample.masks.flatten(1).any(1).all()
        )
        assert len(sample.mask_names) == len(sample.masks) == len(sample.part_of)
        assert set(sample.mask_names) <= set(dataset.classes)
    return [(sample, dataset.classes) for sample in samples]


@st.composite
def edited(draw):
    """COCO's content with one to three entries set to anything, doubled, or taken away."""
    content = copy.deepcopy(CONTENT)
    for _ in range(draw(st.integers(1, 3))):
        rows = content[draw(st.sampled_from(sorted(content)))]
        if not isinstance(rows, list) or not rows:
            continue
        row = draw(st.sampled_from(rows))
        action = draw(st.sampled_from(["set", "set", "set", "delete", "double", "row", "all"]))
        if action == "row":
            rows[rows.index(row)] = draw(ODD)
        elif action == "all":
            content[draw(st.sampled_from(sorted(content)))] = draw(ODD)
        elif action == "double":
            rows.append(row)
        elif isinstance(row, dict) and row:
            key = draw(st.sampled_from(sorted(row)))
            if action == "delete":
                del row[key]
            else:
                row[key] = draw(ODD)
    return content


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    for folder in ("annotations", "val2017"):
        (root / folder).mkdir()
    for k in (1, 2):
        Image.new("RGB", (8, 6)).save(root / "val2017" / f"{k}.png")
    return root


@MANY
@given(content=edited())
def test_coco_files(coco, content):
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    read_all(f"coco:{coco}")


def test_the_fuzzed_coco_file_is_whole(coco):
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(CONTENT))
    assert [len(sample.masks) for sample, _ in read_all(f"coco:{coco}")] == [2, 1]


@MANY
@given(content=st.binary(max_size=60), place=st.integers(0, 500))
def test_coco_files_of_other_bytes(coco, content, place):
    whole = json.dumps(CONTENT).encode()
    damaged = whole[:place] + content + whole[place + len(content) // 2 :]
    (coco / "annotations" / "instances_val2017.json").write_bytes(damaged)
    read_all(f"coco:{coco}")


@MANY
@given(
    segmentation=ODD | st.fixed_dictionaries({"size": ODD, "counts": ODD | st.binary(max_size=9)})
)
def test_masks_of_any_kind(segmentation):
    try:
        mask = decode(segmentation, 6, 8)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        assert "\n" not in str(error)
    else:
        assert mask.shape == (6, 8) and mask.dtype == torch.bool


@MANY
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), data=st.data())
def test_run_lengths_come_back(rows, columns, data):
    bits = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    mask = torch.tensor(bits).reshape(rows, columns)
    assert torch.equal(decode(encode(mask), rows, columns), mask)


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("voc")
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(root / "JPEGImages" / "a.jpg")
    return root


PIXELS = st.lists(st.sampled_from([0, 1, 2, 20, 21, 254, 255]), min_size=6, max_size=6)
CHANNEL = st.sampled_from([0, 64, 128, 192, 224, 255])
COLOURS = st.lists(st.tuples(CHANNEL, CHANNEL, CHANNEL), min_size=1, max_size=4)
LINES = st.builds(
    lambda name, colours: f"{name}:{','.join(map(str, colours[0]))}::",
    st.text("abc", max_size=2),
    COLOURS,
)
LABELMAP = st.none() | st.lists(st.text("ab:,#0 \t", max_size=9) | LINES, max_size=5)
LISTED = ["a", "a.jpg", "JPEGImages/a.jpg SegmentationClass/a.png", "../a", "b", "a 1"]


@MANY
@given(
    classes=PIXELS,
    objects=PIXELS,
    palette=st.none() | COLOURS,
    mode=st.sampled_from(["P", "L", "RGB", "RGBA", "1", "I;16"]),
    labelmap=LABELMAP,
    line=st.sampled_from(
        ["a", "a.jpg", "JPEGImages/a.jpg SegmentationClass/a.png", "../a", "b", "a 1"]
    ),
)
def test_voc_files(voc, classes, objects, palette, mode, labelmap, line):
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text(line)
    (voc / "labelmap.txt").unlink(missing_ok=True)
    if labelmap is not None:
        (voc / "labelmap.txt").write_text("\n".join(labelmap))
    for folder, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        image = Image.fromarray(np.array(values, np.uint8).reshape(2, 3))
        if palette is not None:
            image = image.convert("P")
            image.putpalette([value for colour in (palette * 256)[:256] for value in colour])
        if mode == "I;16":
            image = image.convert("L")  # Pillow knows no shorter way
        image.convert(mode).save(voc / folder / "a.png")
    for spec in ("voc", "voc-objects"):
        for sample, _ in read_all(f"{spec}:{voc}"):
            assert not (sample.masks.any(0) & sample.void).any()


KINDS = ["png", "png", "text", "empty", "folder", "link", "loop"]
NAMES = st.sampled_from(
    ["train", "Train", "val", "VALID", "test", "a", "b", "c.png", ".git", "a b", "ü", "classes.txt"]
)


@settings(MANY, max_examples=60)
@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=6, max_size=6),
)
def test_folders(paths, kinds):
    with TemporaryDirectory() as name:
        root = Path(name)
        for parts, what in zip(paths, kinds, strict=False):
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if what == "folder":
                    path.mkdir()
                elif what == "link":
                    path.symlink_to("nowhere")
                elif what == "loop":
                    path.symlink_to(root)
                elif what == "png":
                    Image.new("RGB", (1, 1)).save(path.with_suffix(".png"))
                else:
                    path.write_text("a\nb\n" if what == "text" else "")
            except OSError:  # there is something of another kind
                continue
        numbers = {}
        for split in ("train", "val", "test", "all"):
            for sample, classes in read_all(f"folder:{root}", split):
                if sample.label is not None:  # a class has one number in all splits
                    name = classes[sample.label]
                    assert name in Path(sample.path).relative_to(root).parts[:2]
                    assert numbers.setdefault(name, sample.label) == sample.label
