"""Folders of images of every kind."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import load_dataset
from crate_analysis.datasets.sample import PassedOverWarning

RED, GREEN = (255, 0, 0), (0, 255, 0)


def paint(path: Path, colour=RED, size=(8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_classes_are_folders(tmp_path):
    for name in ("wolf/b.png", "wolf/a.png", "cat/deep/x.png"):
        paint(tmp_path / "val" / name)
    for name in ("wolf", "cat"):
        paint(tmp_path / "train" / name / "y.png")
    (tmp_path / "val" / "wolf" / "notes.txt").write_text("no image")
    with pytest.warns(PassedOverWarning, match=r"val: passed over 1 files .* \(1 \.txt\)$"):
        dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.has_splits and dataset.classes == ("cat", "wolf")
    assert [Path(sample.path).name for sample in dataset] == ["x.png", "a.png", "b.png"]
    assert [sample.label for sample in dataset] == [0, 1, 1]
    sample = dataset[0]
    assert sample.image.shape == (3, 6, 8)
    assert sample.masks.shape == (0, 6, 8)
    assert sample.mask_names == ()
    assert len(load_dataset(f"folder:{tmp_path}", "train")) == 2
    with pytest.raises(FileNotFoundError, match=r"no split 'test' there, only train, val"):
        load_dataset(f"folder:{tmp_path}", "test")


def test_without_splits_and_classes(tmp_path):
    paint(tmp_path / "b.png")
    paint(tmp_path / "a.jpg")
    for split in ("val", "all"):
        dataset = load_dataset(f"folder:{tmp_path}", split)
        assert [sample.label for sample in dataset] == [None, None]
        assert not dataset.has_splits
    for split in ("train", "test", "dev"):  # the same images under two names would be compared
        with pytest.raises(FileNotFoundError, match=rf"has no splits, so no split '{split}': all"):
            load_dataset(f"folder:{tmp_path}", split)
    paint(tmp_path / "cat" / "c.png")
    with pytest.raises(ValueError, match=r"images beside folders of images \(a\.jpg\)"):
        load_dataset(f"folder:{tmp_path}")


def test_the_middle_square_is_kept(tmp_path):
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(GREEN, (10, 0, 30, 20))
    picture.save(tmp_path / "wide.png")
    image = load_dataset(f"folder:{tmp_path}", image_size=10)[0].image
    assert image.shape == (3, 10, 10)
    assert image[1].min() > 230
    assert (image[1, :, 1:-1] > 250).all()


def test_a_limit_keeps_a_random_choice(tmp_path):
    for number in range(40):
        paint(tmp_path / f"{number:02d}.png", size=(1, 1))

    def paths(limit, seed):
        return [s.path for s in load_dataset(f"folder:{tmp_path}", limit=limit, seed=seed)]

    everything = paths(None, 0)
    assert len(everything) == 40
    assert paths(100, 0) == everything
    assert paths(7, 3) == paths(7, 3) == sorted(paths(7, 3))
    assert len(set(paths(7, 3))) == 7
    assert paths(7, 3) != paths(7, 4)
    assert paths(7, 0) != everything[:7]


def test_every_mode_becomes_rgb(tmp_path):
    grey = np.full((4, 4), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(grey).convert("1").save(tmp_path / "bits.png")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    images = {Path(s.path).stem: s.image for s in load_dataset(f"folder:{tmp_path}", image_size=4)}
    assert {image.shape for image in images.values()} == {(3, 4, 4)}
    for name in ("grey", "sixteen", "palette"):
        assert (images[name] == 128).all()
    assert (images["clear"] == 255).all()  # nothing, seen on white
    assert images["cmyk"][0].min() > 200
    assert images["cmyk"][1:].max() < 60


def test_pictures_stand_upright(tmp_path):
    picture = Image.new("RGB", (6, 2), RED)
    picture.paste(GREEN, (0, 0, 3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: to be shown turned clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    image = load_dataset(f"folder:{tmp_path}")[0].image
    assert image.shape == (3, 6, 2)
    assert (image[1, :3] == 255).all()


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    paint(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image at all")
    paint(tmp_path / "c.png", size=(300, 300))
    whole = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    dataset = load_dataset(f"folder:{tmp_path}")
    assert torch.equal(dataset[0].image[0], torch.full((6, 8), 255, dtype=torch.uint8))
    for index, name in ((1, "b.png"), (2, "c.png")):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image .*replace") as e:
            dataset[index]
        assert "\n" not in str(e.value)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: give the folder"):
        load_dataset(f"folder:{tmp_path}/nowhere")
    with pytest.raises(ValueError, match="holds no images: put some there"):
        load_dataset(f"folder:{tmp_path}")


# --- one numbering of classes for all splits ----------------------------------------------------


def fill(root: Path, split: str, *classes: str) -> None:
    for name in classes:
        paint(root / split / name / f"{name}.png", size=(1, 1))


def labels(spec: str, split: str) -> dict[str, int]:
    return {Path(s.path).stem: s.label for s in load_dataset(spec, split)}


def test_a_split_with_fewer_classes_keeps_the_numbers(tmp_path):
    fill(tmp_path, "train", "a", "b", "c")
    fill(tmp_path, "val", "b", "c")
    fill(tmp_path, "test", "c")
    for split, expected in (("val", {"b": 1, "c": 2}), ("test", {"c": 2})):
        dataset = load_dataset(f"folder:{tmp_path}", split)
        assert dataset.classes == ("a", "b", "c")
        assert labels(f"folder:{tmp_path}", split) == expected


def test_a_split_with_other_classes_is_refused_until_they_are_listed(tmp_path):
    fill(tmp_path, "train", "a", "b", "cat")
    fill(tmp_path, "val", "b", "Cat", "d")
    with pytest.raises(
        ValueError,
        match=r"val has class folders that .*train does not have: Cat, d \(did you mean 'cat'\?\); "
        r"rename or move them, or list all classes in .*classes\.txt, one a line",
    ) as error:
        load_dataset(f"folder:{tmp_path}")
    assert "\n" not in str(error.value)
    (tmp_path / "classes.txt").write_text("d\nb\nCat\ncat\na\n")
    assert labels(f"folder:{tmp_path}", "val") == {"d": 0, "b": 1, "Cat": 2}
    assert labels(f"folder:{tmp_path}", "train") == {"b": 1, "cat": 3, "a": 4}
    for text, fault in (
        ("a\na\n", "names 'a' twice"),
        ("\n", "names no class"),
        ("a\n", "does not"),
    ):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(ValueError, match=fault):
            load_dataset(f"folder:{tmp_path}")


def test_without_train_all_splits_share_their_classes(tmp_path):
    fill(tmp_path, "val", "b", "c")
    fill(tmp_path, "test", "a", "c")
    assert labels(f"folder:{tmp_path}", "val") == {"b": 1, "c": 2}
    assert labels(f"folder:{tmp_path}", "test") == {"a": 0, "c": 2}


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("Train", "Val"), ("train", "val")),
        (("TRAINING", "Validation"), ("train", "val")),
        (("training", "valid"), ("train", "validation")),
        (("train", "val"), ("Train", "VALID")),
    ],
)
def test_splits_by_their_other_names(tmp_path, names, asked):
    fill(tmp_path, names[0], "a", "b")
    fill(tmp_path, names[1], "b")
    assert labels(f"folder:{tmp_path}", asked[0]) == {"a": 0, "b": 1}
    assert labels(f"folder:{tmp_path}", asked[1]) == {"b": 1}
    with pytest.raises(FileNotFoundError, match=r"no split 'test' there, only train, val$"):
        load_dataset(f"folder:{tmp_path}", "test")
    with pytest.raises(FileNotFoundError, match=r"no split 'vak' .* did you mean 'val'"):
        load_dataset(f"folder:{tmp_path}", "vak")


def test_folders_that_may_be_either_are_refused(tmp_path):
    fill(tmp_path / "two", "val", "a")
    fill(tmp_path / "two", "Valid", "a")
    with pytest.raises(ValueError, match="holds Valid and val, which are both called like"):
        load_dataset(f"folder:{tmp_path / 'two'}")
    fill(tmp_path / "one", "train", "a")
    (tmp_path / "one" / "val").symlink_to(tmp_path / "one" / "train")
    with pytest.raises(ValueError, match="are one folder, so that splits 'train' and 'val' would"):
        load_dataset(f"folder:{tmp_path / 'one'}")
    vehicles = tmp_path / "vehicles"
    for name in ("bus", "train"):
        paint(vehicles / name / f"{name}.png")
    with pytest.raises(ValueError, match=r"the folder train beside others with images \(bus\)"):
        load_dataset(f"folder:{vehicles}")
    (vehicles / "classes.txt").write_text("train\nbus\n")
    assert labels(f"folder:{vehicles}", "val") == {"train": 0, "bus": 1}


# --- what is found, and what is passed over -----------------------------------------------------


def test_links_to_folders_are_followed_and_lead_in_no_circle(tmp_path):
    fill(tmp_path / "data", "train", "a", "c")
    fill(tmp_path / "far", ".", "b")
    train = tmp_path / "data" / "train"
    (train / "b").symlink_to(tmp_path / "far" / "b")
    (train / "b" / "again").symlink_to(train)
    (train / "b" / "self").symlink_to("self")
    (train / "a" / "up").symlink_to("..")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.warns(PassedOverWarning, match=r"1 files that are no images \(1 without ending\)"):
        found = labels(f"folder:{tmp_path / 'link'}", "train")
    assert found == {"a": 0, "b": 1, "c": 2}


def test_whatever_pillow_decodes_itself_is_found(tmp_path):
    image = Image.new("RGB", (8, 8), RED)
    names = [
        "jpg",
        "JPEG",
        "jfif",
        "jpe",
        "png",
        "apng",
        "webp",
        "bmp",
        "dib",
        "tif",
        "TIFF",
        "gif",
    ]
    names += ["ppm", "pnm", "jp2", "j2k", "tga", "pcx", "sgi", "ico", "avif", "qoi", "dds"]
    formats = {"jfif": "JPEG", "jpe": "JPEG", "pnm": "PPM", "apng": "PNG", "j2k": "JPEG2000"}
    for name in names:
        image.save(tmp_path / f"x.{name}", format=formats.get(name))
    Image.new("L", (8, 8)).save(tmp_path / "grey.pgm")
    Image.new("1", (8, 8)).save(tmp_path / "bits.pbm")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert len(dataset) == len(names) + 2
    assert all(sample.image.shape == (3, 8, 8) for sample in dataset)


def test_what_is_no_image_is_counted(tmp_path):
    fill(tmp_path, "val", "a", "b")
    for name in ("a/x.heic", "a/y.heic", "b/notes.txt", "b/Thumbs.db", "b/.DS_Store", "LICENSE"):
        (tmp_path / "val" / name).write_text("")
    (tmp_path / "val" / "empty").mkdir()
    with pytest.warns(
        PassedOverWarning,
        match=r"passed over 4 files that are no images \(1 without ending, 2 \.heic, 1 \.txt\) and "
        r"folders without images \(empty\)$",
    ):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "unlabelled").mkdir()
    paint(tmp_path / "unlabelled" / "x.png")
    paint(tmp_path / "train" / "a" / "x.png")
    fill(tmp_path, "train", "b")
    with pytest.warns(PassedOverWarning, match="and unlabelled is none of them: it is not read"):
        load_dataset(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("kind", ["folder", "voc", "voc-objects", "coco"])
def test_what_is_no_folder_is_said(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paint(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"a\.png is a file, not a folder: give the folder"):
        load_dataset(f"{kind}:~/a.png")
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: give the folder"):
        load_dataset(f"{kind}:~/nowhere")
    with pytest.raises(FileNotFoundError, match="there is no such home folder"):
        load_dataset(f"{kind}:~nobody-of-this-name/x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="pipe is a file, not a folder"):
        load_dataset(f"{kind}:{tmp_path}/pipe")
    (tmp_path / "broken").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match="broken is no folder"):
        load_dataset(f"{kind}:{tmp_path}/broken")


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paint(tmp_path / "images" / "a.png")
    assert len(load_dataset("folder:~/images")) == 1
