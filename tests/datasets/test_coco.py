"""COCO's layout with few pixels: polygons, run lengths, crowds, and what is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import batches, load_dataset
from crate_analysis.datasets.coco import decode, encode
from crate_analysis.datasets.sample import MissingSampleError, UnreadableSampleError

SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]
COLUMN = {"size": [6, 8], "counts": [6, 6, 36]}  # the second of 8 columns of 6
CROWD = {"size": [6, 8], "counts": [42, 6]}  # the last


def note(number, segmentation, image=9, category=3, crowd=0):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def write(root, notes, names=("x.jpg",), **extra):
    """Pictures 9, 10, ... of 8 x 6 pixels."""
    (root / "annotations").mkdir(exist_ok=True)
    (root / "val2017").mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(root / "val2017" / name)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": 6, "width": 8}
            for number, name in enumerate(names, 9)
        ],
        "categories": [{"id": 44, "name": "bed"}, {"id": 3, "name": "cup"}],
        "annotations": notes,
        **extra,
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return f"coco:{root}"


def test_polygons_run_lengths_and_crowds(tmp_path):
    notes = [
        note(1, SQUARE, category=44),
        note(2, CROWD, crowd=1),
        note(3, COLUMN),
        note(4, SQUARE, image=777),  # of a picture that is not listed
    ]
    dataset = load_dataset(write(tmp_path, notes))
    assert dataset.classes == ("cup", "bed")
    sample = dataset[0]
    expected = torch.zeros(3, 6, 8, dtype=torch.bool)
    expected[0, 1:5, 2:6] = True
    expected[1, :, 1] = True
    expected[2, :, 7] = True
    assert sample.mask_names == ("bed", "cup")
    assert torch.equal(sample.masks, expected[:2])
    assert torch.equal(sample.crowds, expected[2:])
    assert torch.equal(sample.ignored, expected[2])
    packed = encode(expected[0])
    assert torch.equal(decode(packed, 6, 8), expected[0])

    small = load_dataset(f"coco:{tmp_path}", image_size=2)[0]  # of pixels (1, 2), (1, 6), (4, 2)
    assert small.masks.tolist() == [[[True, False], [True, False]]] and len(small.crowds) == 0
    assert small.mask_names == ("bed",)


def test_run_lengths_of_any_mask_come_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        mask = torch.rand(70, 90, generator=generator) < share
        mask = mask.repeat_interleave(5, 0)  # runs that need more than one character
        packed = encode(mask)
        assert torch.equal(decode(packed, 350, 90), mask)
        packed["counts"] = packed["counts"].encode()
        assert torch.equal(decode(packed, 350, 90), mask)


NAN, FAR = float("nan"), 1e12
DAMAGED = {
    "three numbers": [[0, 0, 5]],
    "half a corner": [[0, 0, 5, 3, 4, 4, 1]],
    "nested": [[[0, 0], [5, 3], [4, 4]]],
    "NaN": [[0, 0, NAN, 3, 4, 4]],
    "far out": [[0, 0, FAR, 3, 4, 4]],
    "letters": [["a", "b", "c", "d", "e", "f"]],
    "of another size": {"size": [4, 4], "counts": [6, 10]},
    "too short": {"size": [6, 8], "counts": [6, 6]},
    "too long": {"size": [6, 8], "counts": [6, 6, 90]},
    "negative": {"size": [6, 8], "counts": [6, -6, 48]},
    "no counts": {"size": [6, 8]},
    "a number": {"size": [6, 8], "counts": 7},
    "an empty string": {"size": [6, 8], "counts": ""},
    "no string of runs": {"size": [6, 8], "counts": "zzzz~~"},
    "winding": [[0, 0, 8, 6] * 200],
    "larger than any number": {"size": [6, 8], "counts": [float("inf"), 48]},
    "no number": {"size": [6, 8], "counts": [NAN, 48]},
    "halves": {"size": [6, 8], "counts": [6.5, 41.5]},
    "cut off": {"size": [6, 8], "counts": "P"},
    "without end": {"size": [6, 8], "counts": "P" * 1000},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_malformed_annotation_takes_its_picture_along_and_no_other(tmp_path, unchecked, what):
    notes = [note(1, SQUARE), note(2, DAMAGED[what]), note(3, COLUMN, image=10)]
    dataset = load_dataset(write(tmp_path, notes, ["x.jpg", "y.jpg"]))
    with pytest.raises(UnreadableSampleError, match="damaged at annotation 2 of image 9 ") as error:
        dataset[0]
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=r"(?s)1 of 2 images were left out.*annotation 2"):
        assert [indices for indices, _ in batches(dataset, 2)] == [[1]]


def test_other_damage(tmp_path):
    notes = [
        note(1, SQUARE, image=9, category=99),
        {"image_id": 10, "segmentation": SQUARE},
        note(3, SQUARE, image=12),
    ]
    names = ["a.jpg", "b.jpg", "c.jpg", "d e.JPG", "größe.jpg", "f.jpg"]
    dataset = load_dataset(write(tmp_path, notes, names))
    (tmp_path / "val2017" / "c.jpg").unlink()
    Image.new("RGB", (6, 6)).save(tmp_path / "val2017" / "f.jpg")
    del dataset.images[4]["height"]
    for index, reason in {
        0: "annotation 1 of image 9 .there is no category 99",
        1: "annotation 0 of image 10 .no 'category_id'",
        2: r"c\.jpg is missing",
        4: "damaged at image 13 .no 'height'",
        5: r"f\.jpg is not 8 x 6 as annotated",
    }.items():
        with pytest.raises(UnreadableSampleError, match=reason) as error:
            dataset[index]
        assert "\n" not in str(error.value)
        assert isinstance(error.value, MissingSampleError) == (index == 2)
    assert dataset[3].path.endswith("d e.JPG") and len(dataset[3].masks) == 1


@pytest.mark.parametrize(
    "damage", [{"annotations": [{"id": 1}]}, {"images": [7]}, {"categories": 0}]
)
def test_a_listing_that_cannot_be_read_at_all(tmp_path, damage):
    spec = write(tmp_path, [], **damage)
    with pytest.raises(ValueError, match=r"instances_val2017\.json is damaged .*fetch it again"):
        load_dataset(spec)


def test_annotations_are_of_the_pixels_as_stored(tmp_path):
    spec = write(tmp_path, [note(1, SQUARE)], ["a.jpg", "b.jpg", "c.jpg"])
    green = Image.fromarray(np.zeros((6, 8, 3), np.uint8))
    green.paste((0, 255, 0), (0, 0, 4, 6))
    exif = Image.Exif()
    for name, orientation, picture in (
        ("a.jpg", 3, green),  # to be turned by half: of the same size when it is
        ("b.jpg", 6, green),  # by a quarter: it would not fit
        ("c.jpg", 8, green.transpose(Image.Transpose.ROTATE_270)),  # it fits only turned
    ):
        exif[0x0112] = orientation
        picture.save(tmp_path / "val2017" / name, exif=exif, quality=95)
    for sample in load_dataset(spec):
        assert sample.image.shape == (3, 6, 8)
        assert sample.image[1, :, :3].min() > 200 and sample.image[1, :, 5:].max() < 60
