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
    """A folder to which images are added by name."""
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
    """Images b to j, with something wrong with each."""
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
    """EXIF says to turn the image; its masks say, by their size, whether they were made so."""
    turned = Image.Exif()
    turned[0x0112] = 6
    flat = [[1, 0, 0, 0], [1, 0, 0, 0]]
    add(voc, "b", size=(4, 2), classes=flat, exif=turned)
    add(voc, "c", size=(4, 2), classes=np.array(flat).T, exif=turned)
    as_stored, upright = load_dataset(f"voc:{voc}")[1], load_dataset(f"voc:{voc}")[2]
    assert as_stored.image.shape == (3, 2, 4) and as_stored.masks.shape == (1, 2, 4)
    assert upright.image.shape == (3, 4, 2) and upright.masks.shape == (1, 4, 2)


# --- classes by colour --------------------------------------------------------------------------

DOG, CAT, SKY = (64, 0, 128), (64, 0, 0), (10, 20, 30)
VOID_COLOUR = (224, 224, 192)


def coloured(path, rows, colours, mode="P"):
    """A mask whose values have these colours."""
    image = Image.fromarray(np.array(rows, np.uint8)).convert("P")
    image.putdata(np.array(rows, np.uint8).ravel().tolist())
    image.putpalette([value for k in range(256) for value in colours.get(k, (0, 0, 0))])
    image.convert(mode).save(path)


def classes_of(voc, name="a", spec="voc"):
    names = [item.name for item in load_dataset(f"{spec}:{voc}").items]
    sample = load_dataset(f"{spec}:{voc}")[names.index(name)]
    return {
        mask_name: mask for mask_name, mask in zip(sample.mask_names, sample.masks, strict=True)
    }


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
def test_a_palette_that_contradicts_the_order_is_read_by_its_colours(voc, mode):
    rows = [[1, 1, 2, 0], [5, 5, 2, 0], [0] * 4, [0] * 4]
    colours = {1: DOG, 2: CAT, 5: VOID_COLOUR}
    coloured(voc / "SegmentationClass" / "a.png", rows, colours, mode)
    sample = load_dataset(f"voc:{voc}")[0]
    assert dict(zip(sample.mask_names, sample.masks.sum((1, 2)).tolist(), strict=True)) == {
        "dog": 2,
        "cat": 2,
    }
    assert torch.equal(sample.void, torch.tensor(rows) == 5)


def test_background_is_what_is_black(voc):
    """Value 0 is drawn as a dog and value 3 is black."""
    coloured(voc / "SegmentationClass" / "a.png", [[0, 3], [3, 3]], {0: DOG})
    Image.new("RGB", (2, 2)).save(voc / "JPEGImages" / "a.jpg")
    assert classes_of(voc)["dog"].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_a_labelmap_is_read_by_its_colours(voc, mode):
    lines = "sky:10,20,30::\nhund:64,0,128::\nbackground:0,0,0::\nignored:224,224,192::\n"
    (voc / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + lines)
    rows = [[1, 1, 2, 0], [5, 5, 2, 0], [0] * 4, [0] * 4]
    colours = {1: DOG, 2: SKY, 5: VOID_COLOUR}
    coloured(voc / "SegmentationClass" / "a.png", rows, colours, mode)
    dataset = load_dataset(f"voc:{voc}")
    assert dataset.classes == ("sky", "hund")
    found = classes_of(voc)
    assert torch.equal(found["sky"], torch.tensor(rows) == 2)
    assert torch.equal(found["hund"], torch.tensor(rows) == 1)
    assert dataset[0].void.sum() == 2
    grey = [[1, 0], [0, 0]]  # without colours the third line cannot be known to be value 0
    indexed(voc / "SegmentationClass" / "a.png", grey)
    with pytest.raises(UnreadableSampleError, match=r"a\.png has no colours, but background is"):
        dataset[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("background:0,0,0::\ncat:1,2,3::\ncat:4,5,6::", "has the class cat twice"),
        ("background:0,0,0::\ncat:1,2,3::\ndog:1,2,3::", "has the colour 1,2,3 twice"),
        ("background:0,0,0::\ncat:::\ndog:1,2,3::", "has colours for 2 of 3 classes"),
        ("background:0,0,0::\ncat:1,2::", "has the line 'cat:1,2::'"),
        ("background:0,0,0::\ncat:1,2,300::", "has the line 'cat:1,2,300::'"),
        ("background:0,0,0::\ncat:red::", "has the line 'cat:red::'"),
        ("background:0,0,0::\nignored:224,224,192::", "names no class"),
    ],
)
def test_a_labelmap_that_contradicts_itself_is_refused(voc, lines, message):
    (voc / "labelmap.txt").write_text(lines)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(f"voc:{voc}")
    assert "\n" not in str(error.value)


def test_colours_of_no_class_are_refused(voc):
    coloured(voc / "SegmentationClass" / "a.png", [[1, 0], [0, 0]], {1: SKY})
    message = r"a\.png has pixels coloured 10,20,30, which is no class of VOC: .*'name:10,20,30::'"
    with pytest.raises(UnreadableSampleError, match=message):
        load_dataset(f"voc:{voc}")[0]
    (voc / "labelmap.txt").write_text("background:0,0,0::\ncat:1,2,3::\n")
    with pytest.raises(UnreadableSampleError, match=r"no class of .*labelmap\.txt"):
        load_dataset(f"voc:{voc}")[0]


@pytest.mark.parametrize("rows", [[[0, 255], [0, 0]], [[255, 255], [255, 255]]])
def test_a_binary_mask_is_not_taken_for_void(voc, rows):
    indexed(voc / "SegmentationClass" / "a.png", rows)
    with pytest.raises(UnreadableSampleError, match=r"only the values 0 and 255, of which 255"):
        load_dataset(f"voc:{voc}")[0]
    indexed(voc / "SegmentationClass" / "a.png", CLASSES)
    indexed(voc / "SegmentationObject" / "a.png", np.where(np.array(OBJECTS) > 0, 255, 0))
    with pytest.raises(UnreadableSampleError, match=r"SegmentationObject/a\.png has no object"):
        load_dataset(f"voc-objects:{voc}")[0]


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_objects_may_have_any_colours(voc, mode):
    colours = {1: SKY, 2: DOG, 3: (1, 1, 1), 255: VOID_COLOUR}
    coloured(voc / "SegmentationObject" / "a.png", OBJECTS, colours, mode)
    sample = load_dataset(f"voc-objects:{voc}")[0]
    found = {name: [] for name in sample.mask_names}
    for name, mask in zip(sample.mask_names, sample.masks, strict=True):
        found[name].append(mask.sum().item())
    assert found == {"aeroplane": [2, 2], "tvmonitor": [1]}
    assert torch.equal(sample.void, torch.tensor(OBJECTS) == 255)


def test_three_objects_of_one_class_are_three_masks_without_parts(voc):
    sample = load_dataset(f"voc-objects:{voc}")[0]
    assert sample.part_of == (None, None, None)


# --- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "/JPEGImages/b.jpg /SegmentationClass/b.png",
        "JPEGImages/b.jpg\tSegmentationClass/b.png",
        "b.jpg",
        "b.JPG",
        "  b  ",
    ],
)
def test_a_line_of_a_list_may_hold_paths(voc, line):
    add(voc, "b")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{line}\n")
    for spec in ("voc", "voc-objects"):
        dataset = load_dataset(f"{spec}:{voc}")
        assert dataset[0].path.endswith("b.jpg") and len(dataset[0].masks) > 1
        assert all(path.exists() for path in dataset.files() if path.name != "labelmap.txt")


@pytest.mark.parametrize("line", ["../../secret", "/etc/passwd", "../a.jpg ../b.png", "C:\\a"])
def test_a_list_does_not_lead_out_of_the_folder(voc, line):
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"val\.txt names a file .* that is not in") as error:
        load_dataset(f"voc:{voc}")
    assert "\n" not in str(error.value)


def test_a_wrong_split_is_told_the_nearest(voc):
    with pytest.raises(FileNotFoundError, match=r"the splits there are val, did you mean 'val'\?"):
        load_dataset(f"voc:{voc}", "vall")
