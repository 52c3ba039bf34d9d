"""The file that training reads its images from: it is never older than them, nor damaged."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from crate_analysis.datasets.batches import LeftOutWarning
from crate_analysis.training.images import CachedImages
from crate_analysis.writing import DamagedFileError

N = 40


@pytest.fixture
def root(tmp_path):
    """Two classes of 20 images."""
    for index in range(N):
        folder = tmp_path / "images" / "train" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (index, 0, 0)).save(folder / f"{index:02d}.png")
    return tmp_path


def cached(root):
    return CachedImages(f"folder:{root}/images", "train", 6, N, 0, root / "cache")


def reds(pictures):
    return sorted(pictures.batch(list(range(len(pictures))))[0][:, 0, 0, 0].tolist())


def image(root, index=5):
    return root / "images" / "train" / "ab"[index % 2] / f"{index:02d}.png"


def files(root):
    return {path: path.stat().st_mtime_ns for path in (root / "cache").iterdir()}


def test_what_did_not_change_is_read_from_the_file(root):
    whole = cached(root)
    assert reds(whole) == list(range(N)) and whole.labels.sum() == N // 2
    before = files(root)
    assert reds(cached(root)) == list(range(N)) and files(root) == before


@pytest.mark.parametrize("index", range(0, N, 13))
def test_any_image_that_changed_is_noticed(root, index):
    cached(root)
    Image.new("RGB", (6, 6), (200, 0, 0)).save(image(root, index))
    assert reds(cached(root)) == sorted({*range(N), 200} - {index})


def test_an_image_that_was_damaged_and_repaired_is_noticed_both_times(root):
    cached(root)
    whole = image(root).read_bytes()
    image(root).write_bytes(whole[:30])
    for _ in range(2):  # said again from the file
        with pytest.warns(LeftOutWarning, match=r"1 of 40 images were left out:\n.*05\.png"):
            assert reds(cached(root)) == sorted({*range(N)} - {5})
    image(root).write_bytes(whole)
    assert reds(cached(root)) == list(range(N))


def test_an_edit_that_keeps_the_size_is_noticed_by_its_time(root):
    cached(root)
    content = image(root).read_bytes()
    Image.new("RGB", (6, 6), (77, 0, 0)).save(image(root))
    assert len(image(root).read_bytes()) == len(content)
    assert 77 in reds(cached(root))


def test_classes_that_were_renamed_are_noticed(root):
    cached(root)
    train = root / "images" / "train"
    (train / "a").rename(train / "c")
    again = cached(root)
    assert again.classes == ("b", "c")
    even = [red for red, label in zip(*map(list, read(again)), strict=True) if label == 1]
    assert all(red % 2 == 0 for red in even)


def read(pictures):
    images, labels = pictures.batch(list(range(len(pictures))))
    return images[:, 0, 0, 0].tolist(), labels.tolist()


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [halve, lambda path: path.write_bytes(b"")])
def test_a_file_that_was_cut_off_is_written_again(root, suffix, damage):
    cached(root)
    [path] = (root / "cache").glob(f"*{suffix}")
    damage(path)
    with pytest.warns(UserWarning, match=r"npy is damaged .*: its images are read again"):
        assert reds(cached(root)) == list(range(N))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reds(cached(root)) == list(range(N))


def test_labels_that_were_edited_or_exchanged_are_written_again(root):
    cached(root)
    [path] = (root / "cache").glob("*.json")
    path.write_text(path.read_text().replace("[0, ", "[1, ", 1))
    with pytest.warns(UserWarning, match="its images are read again"):
        assert read(cached(root))[1].count(0) == N // 2
    other = CachedImages(f"folder:{root}/images", "train", 5, N, 0, root / "other")
    shutil.copy(other.path.with_suffix(".json"), path)
    with pytest.warns(UserWarning, match="its images are read again"):
        assert reds(cached(root)) == list(range(N))


def test_an_image_that_was_changed_within_the_file_is_refused(root):
    path = cached(root).path
    images = np.load(path, mmap_mode="r+")
    images[7, 1, 2, 3] ^= 1
    images.flush()
    pictures = cached(root)
    pictures.batch([6, 8])
    with pytest.raises(DamagedFileError, match=rf"{path.name}, image 7, is not as it .*run again"):
        pictures.batch([6, 7])


def test_images_of_another_file_are_refused(root):
    path = cached(root).path
    images = np.load(path, mmap_mode="r+")
    images[[3, 4]] = images[[4, 3]]
    images.flush()
    with pytest.raises(DamagedFileError, match="image 3"):
        cached(root).batch([0, 3])


def test_what_draws_the_images_is_part_of_the_name(tmp_path, monkeypatch):
    first = CachedImages("creatures", "train", 24, 4, 0, tmp_path).path
    monkeypatch.setattr("crate_analysis.training.images.of_code", lambda *_: "other code")
    assert CachedImages("creatures", "train", 24, 4, 0, tmp_path).path != first
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]


def test_images_without_labels_are_refused_before_they_are_read(root):
    shutil.move(root / "images" / "train" / "a", root / "flat")
    with pytest.raises(ValueError, match=r"has no label; training needs a data set with one class"):
        CachedImages(f"folder:{root}/flat", "val", 6, N, 0, root / "cache")
    assert not (root / "cache").exists()
