"""COCO's layout with few pixels: polygons, run lengths, crowds, and what is damaged."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import batches, load_dataset
from crate_analysis.datasets.coco import decode, encode
from crate_analysis.datasets.sample import (
    MissingSampleError,
    PassedOverWarning,
    UnreadableSampleError,
)
from crate_analysis.segmentation import write_coco_results

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
    """Images 9, 10, ... of 8 x 6 pixels."""
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
        note(4, SQUARE, image=777),  # of an image that is not listed
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


# --- other files --------------------------------------------------------------------------------


def place(root, listing, images, notes=(), **image):
    """One image of 8 x 6 pixels in a folder, and its annotations."""
    for path in (root / listing, root / images / "x.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(root / images / "x.jpg")
    content = {
        "images": [{"id": 9, "file_name": "x.jpg", "height": 6, "width": 8} | image],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": list(notes) or [note(1, SQUARE)],
    }
    (root / listing).write_text(json.dumps(content))
    return f"coco:{root}"


@pytest.mark.parametrize(
    ("listing", "images", "split"),
    [
        ("annotations/instances_val2014.json", "val2014", "val"),
        ("annotations/instances_val2017.json", "images/val2017", "val2017"),
        ("annotations/instances_val.json", "val", "val"),
        ("annotations/instances_valid.json", "images", "val"),
        ("annotations/instances_Train.json", "images/Train", "train"),
        ("annotations/instances_train.json", "data", "training"),
        ("annotations/instances_minival2014.json", "val2014/../minival2014", "minival"),
        ("annotations/instances_default.json", "images/default", "val"),
        ("annotations/instances_default.json", "images", "all"),
        ("instances_default.json", ".", "default"),
        ("_annotations.coco.json", ".", "val"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test/_annotations.coco.json", "test", "test"),
    ],
)
def test_annotations_by_their_other_names(tmp_path, listing, images, split):
    (tmp_path / "val2014").mkdir()
    dataset = load_dataset(place(tmp_path, listing, images), split)
    assert len(dataset[0].masks) == 1
    single = "default" in listing or listing[0] == "_"
    assert dataset.has_splits == (not single)
    if single:
        with pytest.raises(FileNotFoundError, match="has no splits, so no split 'train'"):
            load_dataset(f"coco:{tmp_path}", "train")
    else:
        with pytest.raises(FileNotFoundError, match=r"has no instances_vll\.json: the splits"):
            load_dataset(f"coco:{tmp_path}", "vll")


def test_of_several_years_the_last_is_read(tmp_path):
    for year in (2014, 2017):
        place(tmp_path, f"annotations/instances_val{year}.json", f"val{year}")
    assert load_dataset(f"coco:{tmp_path}").listing.name == "instances_val2017.json"
    assert "val2014" in load_dataset(f"coco:{tmp_path}", "val2014")[0].path


def test_what_is_not_cocos_is_said(tmp_path):
    place(tmp_path, "lvis_v1_val.json", "val2017")
    with pytest.raises(FileNotFoundError, match=r"holds LVIS's annotations, which name only some"):
        load_dataset(f"coco:{tmp_path}")
    image = {"not_exhaustive_category_ids": []}
    spec = place(tmp_path, "annotations/instances_val2017.json", "val2017", **image)
    with pytest.raises(ValueError, match="it is LVIS's"):
        load_dataset(spec)
    other = tmp_path / "other"
    place(other, "annotations/panoptic_val2017.json", "val2017")
    with pytest.raises(FileNotFoundError, match=r"no COCO folder \(there is panoptic_val2017"):
        load_dataset(f"coco:{other}")


def test_ids_may_be_text(tmp_path):
    notes = [note("1", SQUARE, "9", "3", "0"), note(2.0, COLUMN, 9.0, 3, "1")]
    notes += [note("b", COLUMN, "9", 3, False)]
    spec = place(tmp_path, "annotations/instances_val.json", "val", notes, id="9", height="6")
    dataset = load_dataset(spec)
    assert dataset[0].mask_names == ("cup", "cup") and len(dataset[0].crowds) == 1
    assert dataset.coco_image(0) == ("9", 6, 8)
    named = place(tmp_path / "b", "annotations/instances_val.json", "val", [note(1, SQUARE, "i")])
    content = json.loads((tmp_path / "b/annotations/instances_val.json").read_text())
    content["images"] = [content["images"][0] | {"id": "i"}, content["images"][0] | {"id": 10}]
    (tmp_path / "b/annotations/instances_val.json").write_text(json.dumps(content))
    assert [len(sample.masks) for sample in load_dataset(named)] == [0, 1]


@pytest.mark.parametrize(
    "empty", [[], [[]], [[], [1, 1]], [[0, 0, 5, 3]], None, [[], [2, 1, 6, 1, 6, 5, 2, 5]]]
)
def test_an_annotation_with_nothing_to_draw_is_left_out_and_its_image_kept(tmp_path, empty):
    notes = [note(1, SQUARE), note(2, empty)]
    spec = write(tmp_path, notes)
    if empty and len(empty[-1]) > 4:  # the good polygon of two is drawn
        assert len(load_dataset(spec)[0].masks) == 2
        return
    with pytest.warns(
        PassedOverWarning, match=r"json: 1 of 2 annotations have no polygon .* left out \(ids 2\)$"
    ):
        dataset = load_dataset(spec)
    assert len(dataset[0].masks) == 1
    with pytest.raises(ValueError, match="has boxes but no segmentation"):
        load_dataset(write(tmp_path, notes[1:]))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"height": 1e300}, "is not 8 x 1"),
        ({"height": float("nan")}, "damaged at image 9"),
        ({"width": float("inf")}, "damaged at image 9"),
        ({"width": 7.5}, "7.5 is no whole number"),
        ({"width": 0}, "6 x 0 pixels"),
        ({"width": -8}, "6 x -8 pixels"),
        ({"width": True}, "True"),
        ({"width": [8]}, "is no number"),
        ({"file_name": "../../x.jpg"}, r"names a file '../../x\.jpg' that is not in"),
        ({"file_name": "/etc/hostname"}, "names a file '/etc/hostname' that is not in"),
        ({"file_name": "..\\..\\x.jpg"}, "that is not in"),
        ({"file_name": "C:\\x.jpg"}, "that is not in"),
        ({"file_name": ""}, "that is not in"),
        ({"file_name": 7}, "no 'file_name'"),
        ({"file_name": None}, "no 'file_name'"),
    ],
)
def test_an_image_that_is_described_wrongly_is_left_out(tmp_path, image, reason):
    dataset = load_dataset(place(tmp_path, "annotations/instances_val.json", "val", **image))
    with pytest.raises(UnreadableSampleError, match=reason) as error:
        dataset[0]
    assert "\n" not in str(error.value)
    list(dataset.files())  # can be listed all the same


def test_a_file_in_a_folder_within_is_found(tmp_path):
    spec = place(tmp_path, "annotations/instances_val.json", "val/deep", file_name="deep\\x.jpg")
    (tmp_path / "val" / "deep\\x.jpg").unlink(missing_ok=True)
    assert load_dataset(spec)[0].path.endswith("deep/x.jpg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), "two of the image id 9"),
        (lambda c: c["images"].append({**c["images"][0], "id": "9"}), "two of the image id 9"),
        (lambda c: c["categories"].append(c["categories"][0]), "two of the category id 3"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "two of the annotation id 1"),
        (lambda c: c["images"].append(7), "'images' holds '7'"),
        (lambda c: c["images"].append({"id": float("nan")}), "damaged at image"),
        (lambda c: c["images"].append({"id": 1e999}), "damaged at image"),
        (lambda c: c["annotations"].append({"id": 2}), "damaged at annotation"),
        (lambda c: c["annotations"].append({"id": [], "image_id": 9}), "damaged at annotation"),
        (lambda c: c["categories"].append({"id": 5}), "damaged at category"),
        (lambda c: c.update(annotations={}), "'annotations' is no list"),
        (lambda c: c.pop("categories"), "no 'categories'"),
        (lambda c: c.update(images=[]), "lists no images"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, damage, message):
    spec = place(tmp_path, "annotations/instances_val.json", "val")
    path = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(spec)
    assert "\n" not in str(error.value) and not isinstance(error.value, UnreadableSampleError)


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"[]", b"7", b'"images"', b"[" * 100_000])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    spec = place(tmp_path, "annotations/instances_val.json", "val")
    (tmp_path / "annotations" / "instances_val.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"instances_val\.json is damaged .*: fetch it again") as e:
        load_dataset(spec)
    assert "\n" not in str(e.value)


def test_long_texts_of_run_lengths_are_refused_at_once(unchecked):
    start = time.monotonic()
    for counts in ("P" * 10**7, "o" * 10**7, "0" * 10**6, b"\xff" * 10**6, [0] * 10**6):
        with pytest.raises(ValueError):
            decode({"size": [6, 8], "counts": counts}, 6, 8)
    with pytest.raises(ValueError, match="outline is too long"):
        decode([[0, 0, 8, 6] * 10**5], 6, 8)
    assert time.monotonic() - start < 20


def test_sizes_may_be_floats():
    whole = encode(torch.eye(6, 8) > 0)
    for size in ([6.0, 8.0], ["6", "8"], [6, 8]):
        packed = {"size": size, "counts": whole["counts"]}
        assert torch.equal(decode(packed, *size), torch.eye(6, 8) > 0)


def test_results_are_written_whatever_the_sizes_are(tmp_path):
    dataset = load_dataset(
        place(tmp_path, "annotations/instances_val.json", "val", height=6.0, width="8")
    )
    packed = encode(torch.ones(3, 4) > 0)
    packed["size"] = [3.0, 4.0]
    columns = {"image": [0], "layer": [1], "score": [1.0]}
    found = pd.DataFrame({**columns, "bbox": [[0, 0, 4, 3]], "segmentation": [packed]})
    write_coco_results(found, dataset, tmp_path / "results.json")
    [result] = json.loads((tmp_path / "results.json").read_text())
    assert result["segmentation"]["size"] == [6, 8] and result["bbox"] == [0, 0, 8, 6]
