"""VOC's layout with few pixels: classes, objects, void, and files that do not fit each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import batches, load_dataset
from crate_analysis.datasets.sample import MissingSampleError, UnreadableSampleError

# aeroplane (1) twice, tvmonitor (20) once; void (255) between the planes and about the set
CLASSES = [[1, 255, 1, 0], [1, 255, 1, 0], [0, 0, 0, 0], [20, 255, 0, 0]]
OBJECTS = [[1, 255, 3, 0], [1, 255, 3, 0], [0, 0, 0, 0], [2, 255, 0, 0]]


def indexed(path, rows, mode=None):
    picture = Image.fromarray(np.array(rows, np.uint8))
    if mode is None:
        picture.putpalette([k for k in range(256) for _ in range(3)])
    else:
        picture = picture.convert(mode)
    picture.save(path, format="PNG")


@pytest.fixture
def voc(tmp_path):
    """A folder to which pictures are added by name."""
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    add(tmp_path, "a")
    return tmp_path


def add(root, name, size=(4, 4), classes=CLASSES, objects=OBJECTS, suffix=".jpg", **options):
    Image.new("RGB", size).save(root / "JPEGImages" / f"{name}{suffix}", **options)
    indexed(root / "SegmentationClass" / f"{name}.png", classes)
    indexed(root / "SegmentationObject" / f"{name}.png", objects)
    with (root / "ImageSets" / "Segmentation" / "val.txt").open("a", encoding="utf-8") as listing:
        listing.write(f"{name}\n")


def test_a_mask_for_each_class_and_void_apart(voc):
    sample = load_dataset(f"voc:{voc}")[0]
    assert sample.mask_names == ("aeroplane", "tvmonitor")
    assert torch.equal(sample.masks[0], torch.tensor(CLASSES) == 1)
    assert torch.equal(sample.void, torch.tensor(CLASSES) == 255)
    assert torch.equal(sample.ignored, sample.void)
    assert sample.crowds.shape == (0, 4, 4)


def test_a_mask_for_each_object_named_by_its_class(voc):
    dataset = load_dataset(f"voc-objects:{voc}")
    assert dataset.name == "voc-objects"
    sample = dataset[0]
    assert sample.mask_names == ("aeroplane", "tvmonitor", "aeroplane")
    for number, mask in enumerate(sample.masks, 1):
        assert torch.equal(mask, torch.tensor(OBJECTS) == number)
    assert torch.equal(sample.void, torch.tensor(OBJECTS) == 255)


def test_an_object_has_the_class_of_most_of_its_pixels(voc):
    stray = [[1, 1, 1, 0], [20, 255, 0, 0], [0] * 4, [0] * 4]
    add(voc, "b", classes=stray, objects=[[1] * 4, [1] * 4, [0] * 4, [0] * 4])
    assert load_dataset(f"voc-objects:{voc}")[1].mask_names == ("aeroplane",)
    add(voc, "c", objects=[[0] * 4, [0] * 4, [7] * 4, [0] * 4])
    with pytest.raises(UnreadableSampleError, match=r"c\.png has object 7 where .* has no class"):
        load_dataset(f"voc-objects:{voc}")[2]


def test_void_is_resized_as_masks_are(voc):
    sample = load_dataset(f"voc-objects:{voc}", image_size=2)[0]
    assert sample.image.shape == (3, 2, 2)
    # of each 2 x 2 pixels the lower right
    assert torch.equal(sample.void, torch.tensor([[True, False], [True, False]]))
    assert sample.mask_names == ()  # no object has a pixel left
    assert load_dataset(f"voc:{voc}", image_size=8)[0].void.sum() == 4 * 3


def damage(root):
    """Pictures b to j, with something wrong with each."""
    for name in "bcdefghij":
        add(root, name)
    classes, pictures = root / "SegmentationClass", root / "JPEGImages"
    (pictures / "b.jpg").unlink()
    (classes / "c.png").unlink()
    indexed(classes / "d.png", CLASSES, "RGB")
    indexed(classes / "e.png", [[0, 21, 0, 0]] * 4)
    indexed(classes / "f.png", [[0, 1], [0, 1]])
    (classes / "g.png").write_bytes(b"")
    whole = (pictures / "h.jpg").read_bytes()
    (pictures / "h.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "SegmentationObject" / "i.png").unlink()
    indexed(root / "SegmentationObject" / "j.png", [[0, 1], [0, 1]])


REASONS = {
    "b": r"b\.jpg is missing",
    "c": r"c\.png is missing",
    "d": r"d\.png has pixels coloured 1,1,1, which is no class of VOC",
    "e": r"e\.png has class 21 of 20: name the classes in labelmap\.txt",
    "f": r"f\.jpg is not of the size of its masks, 2 x 2 pixels",
    "g": r"g\.png cannot be read as an image",
    "h": r"h\.jpg cannot be read as an image",
    "i": r"i\.png is missing",
    "j": r"j\.png is not of the size of its namesake",
}


def test_what_is_wrong_with_one_picture_is_said_and_the_rest_read(voc):
    damage(voc)
    dataset = load_dataset(f"voc-objects:{voc}")
    for index, reason in enumerate(REASONS.values(), 1):
        # the object's map of f no longer fits its class map, which is noticed first
        reason = r"f\.png is not of the size of its namesake" if index == 5 else reason
        with pytest.raises(UnreadableSampleError, match=reason) as error:
            dataset[index]
        assert "\n" not in str(error.value)
        assert isinstance(error.value, MissingSampleError) == ("is missing" in reason)
    with pytest.warns(UserWarning, match=r"(?s)9 of 10 images were left out:.*b\.jpg.*j\.png"):
        assert [indices for indices, _ in batches(dataset, 4)] == [[0]]
    by_class = load_dataset(f"voc:{voc}")
    with pytest.raises(UnreadableSampleError, match=REASONS["f"]):
        by_class[5]
    with pytest.warns(UserWarning, match=r"7 of 10 images were left out"):
        assert [i for indices, _ in batches(by_class, 4) for i in indices] == [0, 8, 9]


def test_a_labelmap_names_the_classes(voc):
    (voc / "labelmap.txt").write_text("# a comment\nbackground:0,0,0::\nvögel:1,2,3::\n", "utf-8")
    indexed(voc / "SegmentationClass" / "a.png", [[1] * 4] * 4)
    assert load_dataset(f"voc:{voc}")[0].mask_names == ("vögel",)
    (voc / "labelmap.txt").write_text("background:0,0,0::\n")
    with pytest.raises(ValueError, match=r"labelmap\.txt names no class: write one") as error:
        load_dataset(f"voc:{voc}")
    assert not isinstance(error.value, UnreadableSampleError)
    (voc / "labelmap.txt").write_bytes(b"background\nv\xf6gel\n")
    with pytest.raises(ValueError, match=r"labelmap\.txt is no text in UTF-8"):
        load_dataset(f"voc:{voc}")


@pytest.mark.parametrize("name", ["two words", "größe 大"])
@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png"])
def test_names_of_files(voc, name, suffix):
    add(voc, name, suffix=suffix)
    masks = voc / "SegmentationClass"
    (masks / f"{name}.png").rename(masks / f"{name}.PNG")
    sample = load_dataset(f"voc:{voc}")[1]
    assert sample.path.endswith(name + suffix) and len(sample.masks) == 2


def test_masks_are_of_the_pixels_as_stored(voc):
    """EXIF says to turn the picture; its masks say, by their size, whether they were made so."""
    turned = Image.Exif()
    turned[0x0112] = 6
    flat = [[1, 0, 0, 0], [1, 0, 0, 0]]
    add(voc, "b", size=(4, 2), classes=flat, exif=turned)
    add(voc, "c", size=(4, 2), classes=np.array(flat).T, exif=turned)
    as_stored, upright = load_dataset(f"voc:{voc}")[1], load_dataset(f"voc:{voc}")[2]
    assert as_stored.image.shape == (3, 2, 4) and as_stored.masks.shape == (1, 2, 4)
    assert upright.image.shape == (3, 4, 2) and upright.masks.shape == (1, 4, 2)
