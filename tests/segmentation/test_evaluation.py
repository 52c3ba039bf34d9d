"""The one-pass evaluation against the plain one, image by image."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import Sample
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import (
    Scoring,
    Truth,
    attention_iou,
    attention_mask,
    best_head_iou,
    best_heads,
    by_class,
    to_pixels,
)
from crate_analysis.walk import Reading


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("crate_micro_patch6_72.creatures", dim=32, depth=3, patch_size=12).eval()


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "dev", image_size=72, limit=5)


@pytest.mark.parametrize("rule", ["mass", "entries"])
def test_the_best_heads_are_those_of_the_plain_measure(model, pictures, rule):
    frame = attention_iou(model, pictures, rules=["mass", "entries"], reading=Reading(batch_size=2))
    best = frame.groupby(["layer", "rule", "image", "mask"]).iou.max()
    for index, sample in enumerate(pictures):
        image = model.normalize(sample.image[None])
        for layer in range(3):
            mask = attention_mask(cls_attention(model, image, layer), 0.6, rule)
            iou, _ = best_head_iou(to_pixels(mask, 72, 72), sample.masks[None])
            for name, value in zip(sample.mask_names, iou[0].tolist(), strict=True):
                assert best[layer, rule, index, name] == pytest.approx(value, abs=1e-6)


def test_every_head_and_mask_has_one_row(model, pictures):
    frame = attention_iou(model, pictures, rules=["mass"])
    masks = sum(len(sample.masks) for sample in pictures)
    assert len(frame) == 3 * 4 * masks  # layers, heads
    assert list(frame.columns) == [
        *("model", "maps", "draw", "layer", "rule", "within", "image"),
        *("place", "mask", "is_part", "head", "share", "iou"),
    ]
    assert frame.iou.between(0, 1).all()


def test_images_without_masks_are_refused(model, tmp_path, pictures):
    from PIL import Image

    Image.fromarray(pictures[0].image.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="the data set has no masks to compare with"):
        attention_iou(model, load_dataset(f"folder:{tmp_path}"))


LEFT, RIGHT = torch.zeros(2, 4, 4, dtype=torch.bool)
LEFT[:, :2] = RIGHT[:, 2:] = True
IMAGE = torch.zeros(3, 4, 4, dtype=torch.uint8)
HEADS = torch.tensor([[[True, False], [True, False]], [[True, True], [True, True]]])
"""The left half, and everything."""


def drawn(names, masks=(LEFT, RIGHT), part_of=()):
    return Sample(IMAGE, None, torch.stack(list(masks)), names, "by hand", part_of=part_of)


def best(*samples):
    truth = Truth(list(samples), range(7, 7 + len(samples)), (2, 2))
    return truth.best_head_iou(HEADS.expand(len(samples), 2, 2, 2)).to_dict("list")


def test_the_best_head_of_each_image_by_hand():
    both = drawn(("cat", "dog"))
    part = drawn(("cat", "tail"), part_of=(None, 0))
    none = drawn(("tail", "cat"), (RIGHT, LEFT & False), part_of=(1, None))
    # the cat has IoU 1 with the first head, the dog 0 with it and 1/2 with the second
    assert best(both, part, none) == {"image": [7, 8], "iou": [0.75, 1.0]}


@pytest.mark.parametrize("name", ["cat", "head", "legs", "animal", "image", "image", "object", ""])
def test_no_name_is_special_and_two_masks_may_have_one(name):
    """Three persons in one image are three masks, whatever they are called."""
    assert best(drawn((name, name))) == {"image": [7], "iou": [0.75]}
    frame = Truth([drawn((name, name))], [7], (2, 2)).compare(HEADS[None])
    assert frame[["place", "mask", "head", "iou"]].to_numpy().tolist() == [
        [0, name, 0, 1.0],
        [1, name, 0, 0.0],
        [0, name, 1, 0.5],
        [1, name, 1, 0.5],
    ]
    assert not frame.duplicated(["image", "place", "head"]).any() and not frame.is_part.any()


@pytest.mark.parametrize("name", ["whole", "part", "image"])
def test_parts_are_those_that_the_sample_says_whatever_they_are_called(name):
    parts = drawn(("whole", name), part_of=(None, 0))
    turned = drawn((name, "whole"), (RIGHT, LEFT), part_of=(1, None))
    assert best(parts, turned) == {"image": [7, 8], "iou": [1.0, 1.0]}


def test_attention_iou_has_a_row_for_each_of_three_persons(model, pictures):
    sample = pictures[0]
    three = replace(sample, masks=sample.masks[:3], mask_names=("person",) * 3, part_of=(None,) * 3)
    one = attention_iou(model, [replace(three, mask_names=("a", "b", "c"))], rules=["mass"])
    same = attention_iou(model, [three], rules=["mass"])
    assert not same.duplicated(["layer", "image", "place", "head"]).any()
    assert best_heads(same).iou.tolist() == best_heads(one).iou.tolist()


def test_classes_are_the_union_of_their_objects():
    siblings = drawn(("cat", "cat", "cat"), (LEFT, RIGHT, LEFT), part_of=(None, None, 0))
    joined = by_class(siblings)
    assert joined.mask_names == ("cat", "cat") and joined.part_of == (None, 0)
    assert joined.masks[0].all() and torch.equal(joined.masks[1], LEFT)
    truth = Scoring(unit="class").truth([siblings], [0], (2, 2))
    assert truth.best_head_iou(HEADS[None]).iou.tolist() == [1.0]
    assert Scoring().truth([siblings], [0], (2, 2)).best_head_iou(HEADS[None]).iou.tolist() == [
        0.75
    ]
    none = replace(siblings, masks=siblings.masks[:0], mask_names=(), part_of=())
    assert by_class(none).masks.shape == (0, 4, 4)


def test_void_may_be_background():
    void = replace(drawn(("cat",), (LEFT,)), void=RIGHT)
    for undecided, expected in (("left out", 1.0), ("background", 0.5)):
        truth = Scoring(undecided=undecided).truth([void], [0], (2, 2))
        everything = HEADS[None, 1:]
        assert truth.best_head_iou(everything).iou.tolist() == [expected]


@pytest.mark.parametrize("name", ["cat", "head", "object"])
def test_parts_count_within_their_own_object(name):
    """Two animals with a part each of one name: each part counts in its own animal alone."""
    top, bottom = torch.zeros(2, 4, 4, dtype=torch.bool)
    top[:2] = bottom[2:] = True
    names, part_of = (name, "leg", name, "leg"), (None, 0, None, 2)
    sample = drawn(names, (top, top & LEFT, bottom, bottom & RIGHT), part_of)
    scoring = Scoring(within=("object",))
    maps = torch.tensor([[[[0.4, 0.1], [0.4, 0.1]]]])
    rows = scoring.score(scoring.truth([sample], [0], (2, 2)), maps)
    assert rows["place"].tolist() == [1, 3] and (rows["mask"] == "leg").all()
    assert rows.share.tolist() == [0.5, 0.5]
    assert rows.iou.tolist() == [1.0, 0.0]
    assert rows.attention.tolist() == pytest.approx([0.8, 0.2])
    assert rows.average_precision.tolist() == pytest.approx([1.0, 0.5])


def test_what_else_a_row_is_of_is_kept_apart_and_nothing_is_lost():
    frame = Truth([drawn(("cat", "dog"))], [7], (2, 2)).compare(HEADS[None])
    both = pd.concat([frame.assign(step=None, noise=0.5), frame.assign(step=3, noise=float("nan"))])
    best = best_heads(both)
    assert len(best) == 2 and best.iou.tolist() == [0.75, 0.75]
    with pytest.raises(ValueError, match="there is no whole object among the scores"):
        best_heads(frame.assign(is_part=True))
