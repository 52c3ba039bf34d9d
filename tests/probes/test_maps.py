"""Numbers of maps, on maps whose numbers are known by hand."""

import math

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.probes import (
    attention_share,
    effective_patches,
    kept_similarity,
    map_frame,
    map_numbers,
    map_similarity,
    regrid,
)
from crate_analysis.walk import walk


def test_effective_patches_counts_those_of_an_even_map():
    maps = torch.zeros(3, 2, 4)
    maps[0] = 0.3  # all eight
    maps[1, 0, :2] = 5.0  # two
    maps[2, 1, 3] = 1.0  # one
    torch.testing.assert_close(effective_patches(maps), torch.tensor([8.0, 2.0, 1.0]))


def test_effective_patches_of_an_uneven_map():
    found = effective_patches(torch.tensor([[0.75, 0.25]]))
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    torch.testing.assert_close(found, torch.tensor(math.exp(entropy)))


def test_share_on_a_mask_that_cuts_through_patches():
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, :, :2] = True  # the left half
    masks[0, 1, 0, 0] = True  # a quarter of the first patch
    maps = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[2.0, 1.0], [5.0, 0.0]]]])
    expected = [[[0.5, 1 / 16], [7 / 8, 2 / 8 / 4]]]
    torch.testing.assert_close(attention_share(maps, masks), torch.tensor(expected))


def test_share_needs_a_grid_that_divides_the_masks():
    masks = torch.ones(1, 1, 6, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"4 x 4 patches does not divide masks of 6 x 8"):
        attention_share(torch.ones(1, 1, 4, 4), masks)


def test_similarity_of_the_same_of_disjoint_and_of_half_shared_maps():
    a = torch.tensor([[4.0, 4.0], [0.0, 0.0]])
    b = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    c = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    pairs = [(a, a), (a, 3 * a), (a, b), (a, c), (b, c)]
    found = map_similarity(*map(torch.stack, zip(*pairs, strict=True)))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, 0.0, 0.5, 0.5]))


def test_similarity_is_one_less_half_the_distance_and_symmetric():
    maps = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    a, b = maps / maps.sum((-2, -1), keepdim=True)
    expected = 1 - (a - b).abs().sum((-2, -1)) / 2
    torch.testing.assert_close(map_similarity(*maps), expected)
    torch.testing.assert_close(map_similarity(*maps.flip(0)), expected)


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_no_map_at_all(value):
    good, bad = torch.ones(1, 2, 2), torch.full((1, 2, 2), value)
    with pytest.raises(ValueError, match="b holds negative entries or NaN"):
        map_similarity(good, bad)
    with pytest.raises(ValueError, match="maps holds a map that is zero everywhere"):
        effective_patches(torch.stack([good, 0 * good]))


def test_regrid_by_whole_patches():
    fine = torch.arange(16.0).view(1, 4, 4)
    coarse = torch.tensor([[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]])
    torch.testing.assert_close(regrid(fine, (2, 2)), coarse.float())
    torch.testing.assert_close(regrid(coarse.float(), (4, 4))[0, :2, :2], torch.full((2, 2), 2.5))


def test_regrid_by_parts_of_patches():
    # thirds to halves: the middle third is shared evenly
    found = regrid(torch.tensor([[3.0, 4.0, 5.0]]), (1, 2))
    torch.testing.assert_close(found, torch.tensor([[5.0, 7.0]]))
    maps = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(regrid(maps, (3, 11)).sum((-2, -1)), maps.sum((-2, -1)))
    torch.testing.assert_close(regrid(maps, (5, 7)), maps)
    with pytest.raises(ValueError, match=r"grid=\(0, 2\) must have"):
        regrid(maps, (0, 2))


def test_a_frame_holds_each_value_in_its_place():
    maps = torch.arange(24.0).view(2, 1, 3, 4)
    frame = map_frame(maps, model="a", layer=4)
    assert list(frame) == ["model", "layer", "image", "head", "row", "column", "attention"]
    cell = frame.query("image == 1 and row == 2 and column == 1")
    assert cell.attention.tolist() == [12 + 9] and cell["head"].tolist() == [0]


def test_what_is_kept_beyond_other_images():
    clean = torch.eye(4).view(4, 1, 2, 2)  # each image's map is a patch of its own
    even = torch.full((4, 1, 2, 2), 0.25)
    half = (clean + even) / 2
    found = kept_similarity(half, clean)
    assert found.similarity.tolist() == pytest.approx([0.625] * 4)
    assert found.others.tolist() == pytest.approx([0.125] * 4)
    assert found.kept.tolist() == pytest.approx([(0.625 - 0.125) / (1 - 0.125)] * 4)
    assert kept_similarity(even, clean).kept.tolist() == pytest.approx([0.0] * 4)
    with pytest.raises(ValueError, match="at least two"):
        kept_similarity(clean[:1], clean[:1])


def test_numbers_of_a_networks_maps():
    model = build_model("crate_micro_patch6_72.creatures").eval()
    data = load_dataset("creatures", "val", 72, limit=3)
    found = map_numbers(model, data, [-2])
    assert found.groupby("image")["head"].nunique().eq(model.config.heads).all()
    [state] = [batch_state for batch in walk(model, data, [-2]) for batch_state in batch.states]
    attention = state.attention().detach()
    own = found[(found.image == 1) & (found["head"] == 2)].iloc[0]
    assert own["to itself"] == pytest.approx(float(attention[1, 2, 0, 0]))
    row = attention[1, 2, 0, 1:]
    assert own.width == pytest.approx(float(effective_patches(row[None])) / 144, rel=1e-5)
    assert found.evenness.between(0, 1 + 1e-6).all()


def test_evenness_needs_an_object():
    model = build_model("crate_micro_patch6_72.creatures").eval()
    found = map_numbers(model, torch.zeros(1, 3, 72, 72, dtype=torch.uint8), [0])
    assert found.evenness.isna().all() and found.width.notna().all()
