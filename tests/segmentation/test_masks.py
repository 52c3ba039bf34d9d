"""Masks and overlaps worked out by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from crate_analysis.segmentation import (
    attention_mask,
    average_precision,
    best_head_iou,
    centre_attention,
    head_iou,
    patch_ceiling,
    to_pixels,
)
from crate_analysis.segmentation.masks import overlap


def grid(rows):
    return torch.tensor(rows)


def boolean(rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_mass_keeps_the_fewest_patches_that_hold_the_share():
    attention = grid([[0.5, 0.2], [0.2, 0.1]])
    assert attention_mask(attention, 0.45, "mass").tolist() == [[True, False], [False, False]]
    # .1 + .2 <= .4 are left out; the later of the two equal entries is kept
    assert attention_mask(attention, 0.6, "mass").tolist() == [[True, False], [True, False]]
    assert attention_mask(attention, 1.0, "mass").all()


def test_entries_keeps_a_share_of_the_patches():
    attention = grid([[0.97, 0.01], [0.005, 0.015]])
    assert attention_mask(attention, 0.5, "entries").tolist() == [[True, False], [False, True]]
    assert attention_mask(attention, 0.6, "mass").sum() == 1


def test_a_flat_map_is_cut_alike_by_both_rules():
    flat = torch.full((10, 10), 0.01)
    assert attention_mask(flat, 0.6, "mass").sum() == pytest.approx(60, abs=1)
    assert attention_mask(flat, 0.6, "entries").sum() == 60


def test_maps_of_a_batch_are_cut_one_by_one():
    attention = torch.rand(2, 3, 4, 5)
    masks = attention_mask(attention)
    assert masks.shape == attention.shape
    assert torch.equal(masks[1, 2], attention_mask(attention[1, 2]))


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused(keep):
    with pytest.raises(ValueError, match="must be a share in"):
        attention_mask(torch.rand(2, 2), keep)


def test_another_rule_and_nan_are_refused(unchecked):
    with pytest.raises(ValueError, match="rule='top' is not one of mass, entries"):
        attention_mask(torch.rand(2, 2), rule="top")
    with pytest.raises(ValueError, match="NaN"):
        attention_mask(torch.full((2, 2), math.nan))


def test_pixels_take_their_patches_value():
    pixels = to_pixels(boolean([[1, 0], [0, 1]]), 4, 6)
    assert pixels.int().tolist() == [[1, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 1, 1, 1]] * 2
    with pytest.raises(ValueError, match="2 x 2 patches does not divide 5 x 6 pixels"):
        to_pixels(boolean([[1, 0], [0, 1]]), 5, 6)


def test_best_head_is_the_one_with_the_highest_overlap():
    truth = boolean([[[[1, 1], [0, 0]], [[0, 0], [0, 1]]]])  # top row; lower right
    masks = boolean([[[[1, 1], [1, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]]]])
    iou, head = best_head_iou(masks, truth)
    assert iou.tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 2)]]
    assert head.tolist() == [[0, 1]]


def test_truth_meets_itself_and_its_complement():
    truth = boolean([[[[1, 0], [0, 1]]]])
    assert best_head_iou(truth, truth)[0].item() == 1
    assert best_head_iou(~truth, truth)[0].item() == 0


def test_an_empty_truth_has_no_overlap_to_speak_of():
    empty = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert best_head_iou(~empty, empty)[0].isnan().all()
    assert best_head_iou(empty, ~empty)[0].item() == 0


def test_baselines_know_nothing_of_the_picture():
    centre = centre_attention(5, 7)
    assert centre.argmax() == 2 * 7 + 3
    torch.testing.assert_close(centre, centre.flip(0, 1))


def test_ceiling_marks_patches_that_are_half_covered():
    truth = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    truth[0, 0, :2, :3] = True  # the first patch whole, the second half
    truth[0, 0, 2, 0] = True  # a quarter of the third
    assert patch_ceiling(truth, 2).int().tolist() == [[[[1, 1], [0, 0]]]]


def cells(rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_average_precision_worked_out_by_hand():
    scores = cells([[0.4, 0.3, 0.2, 0.1]])
    truth = cells([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    found = average_precision(scores, truth, cells([1, 1, 1, 1]))
    # first mask: recall 1/2 at precision 1, the other half at 2/3; second: all of it at 1/4
    assert found[0, 0, :3].tolist() == pytest.approx([1 / 2 + 1 / 2 * 2 / 3, 1 / 4, 1])
    assert found[0, 0, 3].isnan()


def test_cells_of_one_score_pass_the_threshold_together():
    tied = cells([[0.5, 0.5, 0.1, 0.1]])
    truth = cells([[0, 1, 1, 0], [1, 1, 0, 0]])
    found = average_precision(tied, truth, cells([1, 1, 1, 1]))
    # recall 1/2 at 1 of 2, then 1 at 2 of 4, in whatever order the cells lie
    assert found[0, 0].tolist() == pytest.approx([1 / 2, 1])
    assert average_precision(tied.flip(-1), truth.flip(-1), cells([1, 1, 1, 1])).equal(found)


def test_a_flat_map_has_the_share_of_the_pixels():
    truth = cells([[3, 0, 9, 2]])
    flat = torch.full((1, 2, 4), 0.25)
    assert (
        average_precision(flat, truth, cells([9, 9, 9, 9])).flatten().tolist()
        == [pytest.approx(14 / 36)] * 2
    )


def test_only_pixels_that_count_are_ranked():
    scores, truth = cells([[0.9, 0.5, 0.1]]), cells([[0, 4, 1]])
    everywhere = average_precision(scores, truth, cells([10, 5, 5]))
    assert everywhere.item() == pytest.approx(4 / 5 * 4 / 15 + 1 / 5 * 5 / 20)
    inside = average_precision(scores, truth, cells([0, 5, 5]))
    assert inside.item() == pytest.approx(4 / 5 * 4 / 5 + 1 / 5 * 5 / 10)


@pytest.mark.parametrize("levels", [None, 4])
def test_average_precision_is_scikit_learns_on_partly_covered_patches(levels):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 4, 60, generator=generator)
    if levels:
        scores = (levels * scores).floor()  # many ties
    pixels = torch.randint(0, 37, (3, 60), generator=generator).float()
    truth = (torch.rand(3, 2, 60, generator=generator) * (pixels[:, None] + 1)).floor()
    truth = truth.minimum(pixels[:, None])
    found = average_precision(scores, truth, pixels)
    inside = np.repeat([1, 0], 60)
    for b, h, m in np.ndindex(found.shape):
        weight = torch.cat([truth[b, m], pixels[b] - truth[b, m]]).numpy()
        score = scores[b, h].repeat(2).numpy()
        expected = average_precision_score(inside, score, sample_weight=weight)
        assert found[b, h, m].item() == pytest.approx(expected, abs=1e-6)


def test_average_precision_refuses_what_it_cannot_rank():
    with pytest.raises(ValueError, match="scores hold NaN"):
        average_precision(cells([[math.nan, 1]]), cells([[1, 0]]), cells([1, 1]))
    with pytest.raises(ValueError, match="truth holds pixels that do not count"):
        average_precision(cells([[0, 1]]), cells([[2, 0]]), cells([1, 1]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -0.1])
def test_what_is_no_attention_is_refused(bad):
    maps = torch.full((1, 2, 2), 0.25)
    maps[0, 1, 1] = bad
    for rule in ("mass", "entries"):
        with pytest.raises(ValueError, match="attention holds NaN, infinite or negative entries"):
            attention_mask(maps, 0.6, rule)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-4, "largest"])
def test_the_scale_of_a_map_does_not_matter(dtype, scale):
    maps = torch.tensor([[0.5, 0.375], [0.0625, 0.0625]], dtype=dtype)
    scaled = maps * (torch.finfo(dtype).max if scale == "largest" else scale)
    for rule in ("mass", "entries"):
        assert torch.equal(attention_mask(scaled, 0.6, rule), attention_mask(maps, 0.6, rule))
    assert not attention_mask(torch.zeros(2, 2, dtype=dtype)).any()


@pytest.mark.parametrize(
    ("masks", "truth", "message"),
    [
        (
            (2, 3, 4, 4),
            (1, 2, 4, 4),
            r"masks is of shape \(2, 4, 4\) and truth of shape \(1, 4, 4\): give both",
        ),
        (
            (1, 3, 4, 4),
            (2, 2, 4, 4),
            r"masks is of shape \(1, 4, 4\) and truth of shape \(2, 4, 4\)",
        ),
        ((2, 3, 4, 4), (2, 2, 1, 4), r"and truth of shape \(2, 1, 4\)"),
        ((2, 3, 4, 4), (2, 2, 8, 8), r"and truth of shape \(2, 8, 8\)"),
    ],
)
@pytest.mark.parametrize("measure", [head_iou, best_head_iou])
def test_images_that_do_not_match_are_refused(measure, masks, truth, message, unchecked):
    empty = [torch.ones(shape, dtype=torch.bool) for shape in (masks, truth)]
    with pytest.raises(ValueError, match=message):
        measure(*empty)
    with pytest.raises(ValueError, match=r"and ignored of shape \(3, 4, 4\)"):
        measure(empty[0], empty[0], torch.zeros(3, 4, 4, dtype=torch.bool))


def test_each_mask_may_have_pixels_of_its_own_that_count():
    scores, truth = cells([[4.0, 3, 2, 1]]), cells([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    own = cells([[1.0, 0, 1, 1], [0, 1, 1, 0]])
    expected = [
        average_precision(scores, truth[:, [k]], own[:, k])[0, 0, 0].item() for k in range(2)
    ]
    assert average_precision(scores, truth, own)[0, 0].tolist() == pytest.approx(expected)
    assert expected == pytest.approx([1.0, 1.0])
    masks = cells([[1.0, 1, 1, 0]])
    assert overlap(masks, truth, own)[0, 0].tolist() == pytest.approx([1.0, 1 / 2])
