"""Folders of pictures of every kind."""

from __future__ import annotations

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
    (tmp_path / "val" / "wolf" / "notes.txt").write_text("no picture")
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
    (tmp_path / "b.png").write_bytes(b"no picture at all")
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
