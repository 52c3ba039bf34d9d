"""What is written as VOC and COCO is what the loaders read back."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from crate_analysis.datasets import Sample, export_coco, export_voc, load_dataset
from crate_analysis.datasets.sample import SampleDataset

SPECS = ("creatures", "creatures-scenes")


class Counting(SampleDataset):
    """Notes which items were asked for, and breaks off at one if told so."""

    def __init__(self, dataset: SampleDataset, breaks_at: int = -1):
        for name in ("name", "split", "classes", "image_size", "seed"):
            setattr(self, name, getattr(dataset, name))
        self.dataset, self.breaks_at = dataset, breaks_at
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index == self.breaks_at:
            raise KeyboardInterrupt
        self.asked.append(index)
        return self.dataset[index]


def things(dataset, sample) -> list:
    if sample.label is not None:
        return [(dataset.classes[sample.label], sample.masks[0])]
    return list(zip(sample.mask_names, sample.masks, strict=True))


@pytest.mark.parametrize("spec", SPECS)
def test_coco_returns_every_instance(tmp_path, spec):
    dataset = load_dataset(spec, image_size=40, limit=6)
    export_coco(dataset, tmp_path, image_format="png", progress=False)
    back = load_dataset(f"coco:{tmp_path}")
    assert back.classes == dataset.classes
    assert len(back) == 6
    for sample, copy in zip(dataset, back, strict=True):
        names, masks = zip(*things(dataset, sample), strict=True)
        assert torch.equal(copy.image, sample.image)
        assert copy.mask_names == names
        assert torch.equal(copy.masks, torch.stack(masks))
        assert copy.label is None


@pytest.mark.parametrize("spec", SPECS)
def test_voc_returns_every_class(tmp_path, spec):
    dataset = load_dataset(spec, image_size=40, limit=6)
    export_voc(dataset, tmp_path, image_format="png", progress=False)
    back = load_dataset(f"voc:{tmp_path}")
    assert back.classes == dataset.classes
    for index, (sample, copy) in enumerate(zip(dataset, back, strict=True)):
        classes: dict[str, torch.Tensor] = {}
        for name, mask in things(dataset, sample):
            classes[name] = classes.get(name, torch.zeros_like(mask)) | mask
        names = tuple(sorted(classes, key=dataset.classes.index))
        assert torch.equal(copy.image, sample.image)
        assert copy.mask_names == names
        assert torch.equal(copy.masks, torch.stack([classes[name] for name in names]))
        with Image.open(tmp_path / "SegmentationObject" / f"val_{index:06d}.png") as file:
            instances = np.asarray(file)
        for number, (_, mask) in enumerate(things(dataset, sample), 1):
            assert np.array_equal(instances == number, mask.numpy())


def test_annotations_of_coco_follow_the_format(tmp_path):
    dataset = load_dataset("creatures", image_size=40, limit=2)
    export_coco(dataset, tmp_path, progress=False)
    content = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    assert [c["id"] for c in content["categories"]] == list(range(1, 13))
    assert [n["id"] for n in content["annotations"]] == [1, 2]
    note, mask = content["annotations"][0], dataset[0].masks[0]
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    assert note["area"] == mask.sum()
    assert note["iscrowd"] == 0
    assert note["bbox"] == [
        columns[0],
        rows[0],
        columns[-1] - columns[0] + 1,
        rows[-1] - rows[0] + 1,
    ]
    assert (tmp_path / "val2017" / "000000000001.jpg").exists()


def test_annotations_of_voc_follow_the_format(tmp_path):
    dataset = load_dataset("creatures-scenes", image_size=40, limit=1)
    export_voc(dataset, tmp_path, progress=False)
    tree = ElementTree.parse(tmp_path / "Annotations" / "val_000000.xml")
    assert tree.findtext("filename") == "val_000000.jpg"
    assert tree.findtext("size/width") == "40"
    assert tuple(o.findtext("name") for o in tree.findall("object")) == dataset[0].mask_names
    rows = dataset[0].masks[0].any(1).nonzero()[:, 0]
    box = tree.find("object/bndbox")
    assert (box.findtext("ymin"), box.findtext("ymax")) == (
        str(int(rows[0]) + 1),
        str(int(rows[-1]) + 1),
    )
    with Image.open(tmp_path / "SegmentationClass" / "val_000000.png") as file:
        assert file.mode == "P"
        assert file.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # VOC's own colours


def test_jpeg_stays_close(tmp_path):
    dataset = load_dataset("creatures", image_size=64, limit=2)
    export_voc(dataset, tmp_path, progress=False)
    for sample, copy in zip(dataset, load_dataset(f"voc:{tmp_path}"), strict=True):
        assert (sample.image.float() - copy.image.float()).abs().mean() < 4


def test_void_lies_along_the_edges_and_in_no_mask(tmp_path):
    dataset = load_dataset("creatures", image_size=64, limit=1)
    export_voc(dataset, tmp_path, image_format="png", border=5, progress=False)
    whole, inner = dataset[0].masks[0], load_dataset(f"voc:{tmp_path}")[0].masks[0]
    with Image.open(tmp_path / "SegmentationClass" / "val_000000.png") as file:
        void = torch.from_numpy(np.asarray(file) == 255)
    eroded = -torch.nn.functional.max_pool2d(-whole[None].float(), 5, 1, 2)[0] > 0
    dilated = torch.nn.functional.max_pool2d(whole[None].float(), 5, 1, 2)[0] > 0
    assert torch.equal(inner, eroded)
    assert torch.equal(void, dilated & ~eroded)


@pytest.mark.parametrize("export", [export_voc, export_coco])
def test_an_interrupted_export_goes_on_and_a_finished_one_is_left(tmp_path, export):
    dataset = load_dataset("creatures", image_size=24, limit=5)
    broken = Counting(dataset, breaks_at=3)
    with pytest.raises(KeyboardInterrupt):
        export(broken, tmp_path / "a", progress=False)
    kind = "voc" if export is export_voc else "coco"
    with pytest.raises(FileNotFoundError):
        load_dataset(f"{kind}:{tmp_path / 'a'}")
    rest = Counting(dataset)
    export(rest, tmp_path / "a", progress=False)
    assert rest.asked == [3, 4]
    export(rest, tmp_path / "a", progress=False)
    assert rest.asked == [3, 4]
    export(dataset, tmp_path / "b", progress=False)
    files = {
        path.relative_to(tmp_path / root): path.read_bytes()
        for root in ("a",)
        for path in (tmp_path / root).rglob("*")
        if path.is_file()
    }
    assert files == {
        path.relative_to(tmp_path / "b"): path.read_bytes()
        for path in (tmp_path / "b").rglob("*")
        if path.is_file()
    }
    assert not [path for path in files if path.suffix in (".tmp", ".part")]


@pytest.mark.parametrize("export", [export_voc, export_coco])
def test_another_export_is_not_overwritten(tmp_path, export):
    export(load_dataset("creatures", image_size=16, limit=2), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another export of split 'val'.*another folder"):
        export(load_dataset("creatures", image_size=24, limit=2), tmp_path, progress=False)
    export(load_dataset("creatures", "train", image_size=24, limit=2), tmp_path, progress=False)
    with pytest.raises(ValueError, match="image_format must be 'jpg' or 'png', got 'gif'"):
        export(load_dataset("creatures", limit=2), tmp_path, image_format="gif", progress=False)


def test_masks_are_resized_to_the_nearest_pixel(tmp_path):
    dataset = load_dataset("creatures", image_size=60, limit=2)
    export_coco(dataset, tmp_path / "coco", image_format="png", progress=False)
    export_voc(dataset, tmp_path / "voc", image_format="png", progress=False)
    for kind in ("coco", "voc"):
        small = load_dataset(f"{kind}:{tmp_path / kind}", image_size=20)
        for sample, copy in zip(dataset, small, strict=True):
            assert copy.image.shape == (3, 20, 20)
            assert torch.equal(copy.masks[0], sample.masks[0][1::3, 1::3])


@pytest.mark.parametrize("size", [72, 144])
@pytest.mark.parametrize("spec", SPECS)
def test_every_layout_gives_the_built_in_data_set_back(tmp_path, spec, size):
    dataset = load_dataset(spec, "dev", image_size=size, limit=5)
    export_voc(dataset, tmp_path / "voc", image_format="png", progress=False)
    export_coco(dataset, tmp_path / "coco", image_format="png", progress=False)
    for back in (f"voc-objects:{tmp_path}/voc", f"coco:{tmp_path}/coco", f"voc:{tmp_path}/voc"):
        for image_size in (None, size):  # not to resize is to resize to its own size
            copies = load_dataset(back, "dev", image_size=image_size)
            assert len(copies) == 5
            for sample, copy in zip(dataset, copies, strict=True):
                assert torch.equal(copy.image, sample.image)
                assert not copy.ignored.any()
                true = things(dataset, sample)
                if back.startswith("voc:"):  # a mask for each class, in their order
                    names = sorted({name for name, _ in true}, key=dataset.classes.index)
                    true = [
                        (name, torch.stack([mask for own, mask in true if own == name]).any(0))
                        for name in names
                    ]
                assert copy.mask_names == tuple(name for name, _ in true)
                assert torch.equal(copy.masks, torch.stack([mask for _, mask in true]))


class Undecided(SampleDataset):
    """One image with two objects, a void pixel and a crowd."""

    name, split, classes, image_size, seed = "undecided", "val", ("cat", "dog"), 4, 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        planes = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2], [4, 4, 4, 4], [0, 0, 0, 0]])
        dog, cat, void, crowd = (planes == k for k in (1, 2, 3, 4))
        image = torch.zeros(3, 4, 4, dtype=torch.uint8)
        masks = torch.stack([dog, cat])
        return Sample(image, None, masks, ("dog", "cat"), "by hand", void, crowd[None])


def test_what_is_undecided_stays_so(tmp_path):
    sample = Undecided()[0]
    export_voc(Undecided(), tmp_path / "voc", image_format="png", progress=False)
    export_coco(Undecided(), tmp_path / "coco", image_format="png", progress=False)
    voc = load_dataset(f"voc-objects:{tmp_path}/voc")[0]
    assert torch.equal(voc.void, sample.ignored)  # VOC has no crowds
    coco = load_dataset(f"coco:{tmp_path}/coco")[0]
    assert torch.equal(coco.crowds, sample.crowds) and not coco.void.any()  # nor COCO void
    for copy in (voc, coco):
        assert copy.mask_names == sample.mask_names and torch.equal(copy.masks, sample.masks)


def test_what_is_missing_is_named(tmp_path):
    for kind in ("voc", "coco"):
        with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
            load_dataset(f"{kind}:{tmp_path}/nowhere")
        with pytest.raises(FileNotFoundError, match=f"this is no {kind.upper()} folder"):
            load_dataset(f"{kind}:{tmp_path}")
    dataset = load_dataset("creatures", image_size=16, limit=2)
    export_voc(dataset, tmp_path / "voc", progress=False)
    export_coco(dataset, tmp_path / "coco", progress=False)
    for kind in ("voc", "coco"):
        with pytest.raises(FileNotFoundError, match="the splits there are val"):
            load_dataset(f"{kind}:{tmp_path / kind}", "train")
    (tmp_path / "voc" / "SegmentationClass" / "val_000001.png").unlink()
    back = load_dataset(f"voc:{tmp_path / 'voc'}")
    assert len(back[0].masks) == 1
    with pytest.raises(FileNotFoundError, match=r"val_000001\.png is missing"):
        back[1]
    (tmp_path / "voc" / "ImageSets" / "Segmentation" / "val.txt").write_text("")
    with pytest.raises(ValueError, match=r"val\.txt lists no images"):
        load_dataset(f"voc:{tmp_path / 'voc'}")


def test_voc_has_its_twenty_classes(tmp_path):
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "VOCdevkit" / "VOC2012" / name).mkdir(parents=True)
    base = tmp_path / "VOCdevkit" / "VOC2012"
    Image.new("RGB", (4, 4)).save(base / "JPEGImages" / "2007_000001.jpg")
    Image.fromarray(np.array([[0, 1, 20, 255]] * 4, np.uint8)).save(
        base / "SegmentationClass" / "2007_000001.png"
    )
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000001\n")
    sample = load_dataset(f"voc:{tmp_path}")[0]
    assert sample.mask_names == ("aeroplane", "tvmonitor")
    assert sample.masks.sum((1, 2)).tolist() == [4, 4]


class Parted(Undecided):
    """One cat with two parts, and a dog; the masks of parts stand before their wholes."""

    def __getitem__(self, index: int) -> Sample:
        planes = torch.tensor([[1, 1, 2, 2], [3, 3, 3, 3], [0, 0, 0, 0], [4, 4, 0, 0]])
        masks = torch.stack([planes == 1, planes == 2, (planes > 0) & (planes < 4), planes == 4])
        image = torch.zeros(3, 4, 4, dtype=torch.uint8)
        names = ("dog", "head", "cat", "dog")  # a part may be called like a class
        return Sample(image, None, masks, names, "by hand", part_of=(2, 2, None, None))


def test_parts_are_no_objects(tmp_path):
    export_voc(Parted(), tmp_path / "voc", image_format="png", progress=False)
    export_coco(Parted(), tmp_path / "coco", image_format="png", progress=False)
    whole = Parted()[0].masks[2:]
    for spec in (f"voc-objects:{tmp_path}/voc", f"coco:{tmp_path}/coco"):
        [copy] = load_dataset(spec)
        assert copy.mask_names == ("cat", "dog") and torch.equal(copy.masks, whole)
    samples = [Parted()[0]]
    with pytest.raises(ValueError, match="has an object 'cat', which is no class of list"):
        export_voc(samples, tmp_path / "list", progress=False)


def test_a_journal_that_was_edited_is_refused(tmp_path):
    dataset = load_dataset("creatures", image_size=24, limit=5)
    with pytest.raises(KeyboardInterrupt):
        export_coco(Counting(dataset, breaks_at=3), tmp_path, progress=False)
    [journal] = (tmp_path / "annotations").glob("*.part")
    journal.write_text(journal.read_text().replace('"area": ', '"area": 1', 1))
    with pytest.raises(ValueError, match=r"part, line 1, is not as it was written.*run again"):
        export_coco(dataset, tmp_path, progress=False)
