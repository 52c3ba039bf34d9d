"""Images as the world keeps them: each kind is read, or left out with a reason."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import batches, load_dataset
from crate_analysis.datasets.batches import LeftOutWarning
from crate_analysis.datasets.sample import PassedOverWarning, UnreadableSampleError

RED, GREEN = (255, 0, 0), (0, 255, 0)


def images(root: Path) -> dict[str, torch.Tensor]:
    return {Path(sample.path).name: sample.image for sample in load_dataset(f"folder:{root}")}


def test_sixteen_bits_and_floats_keep_their_grey(tmp_path):
    grey = np.full((4, 4), 128 * 257, np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.tif")
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "c.tif")
    Image.new("LA", (4, 4), (128, 255)).save(tmp_path / "d.png")
    found = images(tmp_path)
    for name in ("a.png", "b.tif", "d.png"):
        assert (found[name] == 128).all()
    assert found["c.tif"][0].tolist() == [[0, 128, 255]]
    Image.fromarray(np.array([[0, np.nan, 1]], np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(UnreadableSampleError, match=r"c\.tif .*values that are not finite"):
        images(tmp_path)


def test_a_palette_with_transparency_is_seen_on_white(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, *RED, *GREEN])
    picture.paste(2, (0, 0, 2, 4))
    picture.save(tmp_path / "one.png", transparency=2)
    picture.save(tmp_path / "one.gif", transparency=2)
    picture.save(tmp_path / "table.png", transparency=bytes([255, 255, 0]))
    for image in images(tmp_path).values():
        assert (image[:, :, :2] == 255).all()
        assert (image[0, :, 2:] == 255).all() and (image[1:, :, 2:] == 0).all()


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    first, second = (Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN))
    options = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=[second], **options)
    [image] = images(tmp_path).values()
    assert (image[0] > 250).all() and (image[1] < 5).all()


def test_an_enormous_picture_is_left_out(tmp_path, monkeypatch):
    for name, size in (("a", (8, 8)), ("b", (12, 12)), ("c", (40, 40))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a warning from here, an error from 200
    dataset = load_dataset(f"folder:{tmp_path}")
    for filter_ in ("error", "ignore", "default"):
        with warnings.catch_warnings():
            warnings.simplefilter(filter_)
            assert len(dataset[0].image)
            for index in (1, 2):
                with pytest.raises(UnreadableSampleError, match=r"exceeds limit of .* pixels"):
                    dataset[index]


def test_one_bad_file_never_ends_a_run(tmp_path):
    for name in ("a.png", "b.JPG", "two words.Jpeg", "größe 大.PNG", "h.png"):
        Image.new("RGB", (6, 6), RED).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.jpg").write_text("no image")
    whole = (tmp_path / "h.png").read_bytes()
    (tmp_path / "e.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "f.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "g.png").mkdir()  # a folder is no image, whatever its name
    dataset = load_dataset(f"folder:{tmp_path}")
    listed = r"(?s)4 of 9 images were left out:.*c\.png.*d\.jpg.*e\.png.*f\.jpg is missing"
    with pytest.warns(UserWarning, match=listed):
        read = [Path(s.path).name for _, samples in batches(dataset, 3) for s in samples]
    assert read == ["a.png", "b.JPG", "größe 大.PNG", "h.png", "two words.Jpeg"]


def test_hidden_files_are_passed_over(tmp_path):
    for name in ("cat/a.png", "cat/.b.png", ".thumbnails/a.png", "cat/.cache/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 6)).save(tmp_path / name)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classes == ("cat",) and len(dataset) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ppm"])
def test_whatever_bytes_are_wrong_the_error_is_the_same_kind(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path, exif=exif)
    whole = path.read_bytes()
    chance = random.Random(0)
    dataset = load_dataset(f"folder:{tmp_path}")
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(len(whole))])])
        for _ in range(chance.randrange(1, 6)):
            # headers are where decoders trip
            place = chance.randrange(min(len(damaged), chance.choice([200, len(whole)])) or 1)
            damaged[place : place + 1] = [chance.randrange(256)]
        path.write_bytes(damaged)
        try:
            assert dataset[0].image.dtype == torch.uint8
        except UnreadableSampleError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_no_file_starts_another_program(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(EPS)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (bin_ / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    with pytest.warns(PassedOverWarning):  # of gs
        dataset = load_dataset(f"folder:{tmp_path}")
    with pytest.raises(UnreadableSampleError, match="cannot be read as an image"):
        dataset[0]
    assert not (tmp_path / "started").exists()


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    (tmp_path / "c.png").symlink_to("c.png")
    Image.new("RGB", (6, 6)).save(tmp_path / "d.png")
    dataset = load_dataset(f"folder:{tmp_path}")
    with pytest.warns(LeftOutWarning, match=r"(?s)3 of 4.*a\.png .*no regular file.*c\.png") as one:
        assert [indices for indices, _ in batches(dataset, 4)] == [[3]]
    assert len(one) == 1
