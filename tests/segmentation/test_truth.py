"""Pixels of which nothing is decided count in no score: cases worked out by hand."""

from __future__ import annotations

import pytest
import torch

from crate_analysis.datasets import Sample
from crate_analysis.segmentation import Scoring, Truth, best_head_iou, head_iou, patch_ceiling

VOID, CROWD = "v", "c"
IMAGE = torch.zeros(3, 4, 4, dtype=torch.uint8)


def plane(drawing: str, letter: str) -> torch.Tensor:
    return torch.tensor([[character == letter for character in row] for row in drawing.split()])


def draw(drawing: str, *letters: str) -> Sample:
    return Sample(
        IMAGE,
        None,
        torch.stack([plane(drawing, letter) for letter in letters]),
        letters,
        "by hand",
        void=plane(drawing, VOID),
        crowds=plane(drawing, CROWD)[None],
    )


def heads(*corners: str) -> torch.Tensor:
    """Maps on a grid of 2 x 2 patches, as masks."""
    return torch.tensor([[[[c == "1" for c in row] for row in map_.split()] for map_ in corners]])


# An animal of four pixels; the left half of the image is two patches of 2 x 2 pixels.
#   a a . .        With the undecided pixels as background the left half has 4 of 8 pixels right,
#   a v . .        IoU 1/2; without them it has 4 of 6, IoU 2/3.
#   a c . .
#   . . . .
ANIMAL = "aa.. av.. ac.. ...."


def test_nothing_is_undecided_unless_told():
    sample = Sample(IMAGE, None, torch.ones(1, 4, 4, dtype=torch.bool), ("a",), "by hand")
    assert sample.void.shape == (4, 4) and sample.crowds.shape == (0, 4, 4)
    assert not sample.ignored.any()
    assert draw(ANIMAL, "a").ignored.nonzero().tolist() == [[1, 1], [2, 1]]


def test_undecided_pixels_do_not_count_against_the_iou():
    left = heads("10 10")
    frame = Truth([draw(ANIMAL, "a")], [5], (2, 2)).compare(left)
    assert frame.iou.tolist() == [pytest.approx(2 / 3)]  # 1/2 with them as background
    sample = draw(ANIMAL, "a")
    pixels = left.repeat_interleave(2, -1).repeat_interleave(2, -2)
    masks, ignored = sample.masks[None], sample.ignored[None]
    assert head_iou(pixels, masks).item() == pytest.approx(1 / 2)
    assert head_iou(pixels, masks, ignored).item() == pytest.approx(2 / 3)
    assert best_head_iou(pixels, masks, ignored)[0].item() == pytest.approx(2 / 3)


def test_a_crowd_over_an_object_leaves_the_rest_of_it():
    sample = draw(ANIMAL, "a")
    over = Sample(
        IMAGE, None, sample.masks, ("a",), "b", crowds=plane("a... a... .... ....", "a")[None]
    )
    frame = Truth([over], [0], (2, 2)).compare(heads("10 00"))
    # of the animal the pixels (0, 1) and (2, 0) count; the first patch has (0, 1) and (1, 1)
    assert frame.iou.tolist() == [pytest.approx(1 / 3)]


def test_share_and_average_precision_leave_them_out():
    scoring = Scoring(keep=0.8)
    maps = torch.tensor([[[[0.9, 0.1], [0.5, 0.1]]]])
    row = scoring.score(scoring.truth([draw(ANIMAL, "a")], [0], (2, 2)), maps).iloc[0]
    assert row["share"] == pytest.approx(4 / 14)
    # patch by patch: 3 of 3 pixels, then 1 of 3 more; recall 3/4 at precision 1, 1 at 4/6
    assert row.average_precision == pytest.approx(3 / 4 * 1 + 1 / 4 * 4 / 6)
    assert row.iou == pytest.approx(2 / 3)
    # of the first patch's attention 3/4 lie on the animal and as much counts, of the second's 1/4
    counted = 0.9 * 3 / 4 + 0.5 * 3 / 4 + 0.1 * 2
    assert row.attention == pytest.approx((0.9 * 3 / 4 + 0.5 * 1 / 4) / counted)


def test_within_an_object_they_count_as_little():
    parts = "aabb aabb .... ...."
    leg = plane(parts, "a")
    sample = Sample(
        IMAGE,
        None,
        torch.stack([leg | plane(parts, "b"), leg]),
        ("animal", "leg"),
        "by hand",
        void=plane("v..v .... .... ....", "v"),
        part_of=(None, 0),
    )
    scoring = Scoring(within=("image", "object"))
    truth = scoring.truth([sample], [0], (2, 2))
    frame = scoring.score(truth, torch.tensor([[[[1.0, 0], [0, 0]]]])).set_index(["within", "mask"])
    assert frame.loc[("object", "leg"), "share"] == pytest.approx(3 / 6)
    assert frame.loc[("image", "leg"), "share"] == pytest.approx(3 / 14)
    assert frame.loc[("object", "leg"), "iou"] == 1


def test_a_mask_that_is_undecided_altogether_has_no_row():
    hidden = Sample(
        IMAGE,
        None,
        torch.stack([plane(ANIMAL, "a"), plane("...b .... .... ....", "b")]),
        ("a", "b"),
        "by hand",
        crowds=plane("...c .... .... ....", "c")[None],
    )
    truth = Truth([hidden], [3], (2, 2))
    masks = heads("10 10", "01 00")
    assert truth.compare(masks)["mask"].tolist() == ["a", "a"]
    assert truth.best_head_iou(masks).to_dict("list") == {"image": [3], "iou": [0.5]}
    everything = Sample(
        IMAGE, None, hidden.masks[:1], ("a",), "x", void=torch.ones(4, 4, dtype=torch.bool)
    )
    assert Scoring().score(Truth([everything], [0], (2, 2)), torch.ones(1, 1, 2, 2)).empty


def test_the_ceiling_takes_patches_of_which_half_of_what_counts_is_in_the_mask():
    drawing = "av.. vv.. .... vvv."
    sample = draw(drawing, "a")
    masks = sample.masks[None]
    assert not patch_ceiling(masks, 2).any()  # 1 of 4 pixels
    ceiling = patch_ceiling(masks, 2, sample.ignored[None])
    assert ceiling[0, 0].tolist() == [[True, False], [False, False]]
    void = torch.ones(1, 4, 4, dtype=torch.bool)
    assert not patch_ceiling(masks, 2, void).any()
