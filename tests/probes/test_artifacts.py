"""Artifact tokens, by hand."""

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import Sample
from crate_analysis.probes import artifact_frame, longest_patches, outlier_patches, without_patches
from crate_analysis.segmentation import TREATMENTS, attention_iou, best_heads, masked_iou
from crate_analysis.walk import Reading


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("vit_micro_patch6_72.creatures", dim=32, depth=2, heads=2).eval()


@pytest.fixture(scope="module")
def data():
    return load_dataset("creatures", "dev", 72, limit=3)


def test_outliers_are_seen_from_their_own_images_median():
    tokens = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 16.0], [0.0, 5.0]])  # norms 5, 5, 16, 5
    both = torch.stack([tokens, 100 * tokens])  # another scale
    assert outlier_patches(both).tolist() == 2 * [[False, False, True, False]]
    assert not outlier_patches(both, factor=3.2).any()  # 16 is not more than 3.2 * 5
    with pytest.raises(ValueError, match=r"factor=1\.0 must be above 1"):
        outlier_patches(both, factor=1.0)


def test_the_longest_are_a_share_of_each_image_and_at_least_one():
    tokens = torch.tensor([[1.0, 2.0, 1.5, 1.0], [9.0, 1.0, 2.0, 8.0]])[..., None]
    assert longest_patches(tokens, 0.01).tolist() == [
        [False, True, False, False], [True, False, False, False],
    ]  # fmt: skip
    assert longest_patches(tokens, 0.5).sum(1).tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"share=1\.0 must lie between 0 and 1"):
        longest_patches(tokens, 1.0)


def test_what_outliers_draw_is_shared_out():
    maps = torch.tensor([[[[0.4, 0.2], [0.1, 0.1]], [[0.8, 0.0], [0.0, 0.0]]]])
    left = without_patches(maps, torch.tensor([[True, False, False, False]]))
    assert torch.allclose(left[0, 0], torch.tensor([[0.0, 0.4], [0.2, 0.2]]))
    assert (left[0, 1] == 0).all()  # nothing else was attended to


def test_a_planted_outlier_is_found_where_it_is(model, data, monkeypatch):
    layer = model.layers[1]
    decode = layer.decode

    def longer(half, codes):
        output = decode(half, codes)
        output = output / output.norm(dim=-1, keepdim=True)
        output[:, 1 + 5] *= 8  # patch 5 of 144 lies on the upper border
        return output

    monkeypatch.setattr(layer, "decode", longer)
    frame = artifact_frame(model, data)
    last = frame[frame.layer == 1]
    assert last["median"].tolist() == pytest.approx([1] * 3) and last.image.tolist() == [0, 1, 2]
    assert last.largest.tolist() == pytest.approx([8] * 3)
    assert last.ratio.tolist() == pytest.approx([8] * 3)
    assert last.outliers.tolist() == pytest.approx([1 / 144] * 3)
    assert (last.border == 1).all() and last["expected border"].iloc[0] == pytest.approx(44 / 144)
    images = model.normalize(torch.stack([sample.image for sample in data]))
    state = next(state for state in model.unroll(images) if state.index == 1)
    maps = state.attention()[:, :, 0, state.patches].mean(1)
    share = (maps[:, 5] / maps.sum(1)).tolist()
    assert last.attention.tolist() == pytest.approx(share, rel=1e-5)
    assert last.drawn.tolist() == pytest.approx([one * 144 for one in share], rel=1e-5)


def test_without_outliers_there_is_nothing_to_draw(model, data):
    frame = artifact_frame(model, data, factor=1e6)
    assert (frame.outliers == 0).all() and (frame.attention == 0).all()
    assert frame.drawn.isna().all() and frame.border.isna().all() and frame.registers.isna().all()


def test_registers_are_no_patches():
    torch.manual_seed(0)
    with_registers = build_model(
        "vit_micro_patch6_72.creatures", dim=32, depth=1, heads=2, registers=2
    ).eval()
    frame = artifact_frame(with_registers, "creatures", reading=Reading(limit=2))
    image = with_registers.normalize(load_dataset("creatures", "val", 72)[0].image[None])
    [state] = list(with_registers.unroll(image))
    norms = state.output.norm(dim=-1)[0]
    assert frame.largest[0] == pytest.approx(norms[3:].max().item(), rel=1e-5)
    expected = norms[1:3].max() / norms[3:].quantile(0.5)
    assert frame.registers[0] == pytest.approx(expected.item(), rel=1e-5)


def test_maps_as_they_are_score_as_everywhere(model, data):
    frame = masked_iou(model, data)
    assert set(frame["maps"]) == set(TREATMENTS)
    plain = best_heads(attention_iou(model, data, rules=("mass",)))
    own = frame[frame["maps"] == TREATMENTS[0]].sort_values(["layer", "image"])
    expected = plain.sort_values(["layer", "image"]).iou.tolist()
    assert own.iou.tolist() == pytest.approx(expected)


def test_an_artifact_off_the_object_is_what_masking_mends(model, monkeypatch):
    """All heads look at the object but for one far patch that is long and draws half of it all."""
    from crate_analysis.segmentation import artifacts

    mask = torch.zeros(72, 72, dtype=torch.bool)
    mask[:6, :12] = True  # patches 0 and 1
    sample = Sample(torch.zeros(3, 72, 72, dtype=torch.uint8), None, mask[None], ("o",), "x")
    planted = torch.zeros(1, 2, 12, 12)
    planted[..., 0, :2] = 0.25
    planted[..., 11, 11] = 0.5
    monkeypatch.setattr(artifacts, "cls_maps", lambda *_: planted)
    far = torch.zeros(1, 144, dtype=torch.bool)
    far[0, 143] = True
    monkeypatch.setattr(artifacts, "longest_patches", lambda *_: far)
    monkeypatch.setattr(artifacts, "_elsewhere", lambda *_: far.roll(-50, 1))
    iou = masked_iou(model, [sample], layers=[1]).set_index("maps").iou
    assert iou[TREATMENTS[0]] == pytest.approx(1 / 3)  # the far patch and one of two are 60 %
    assert iou[TREATMENTS[1]] == pytest.approx(1)
    assert iou[TREATMENTS[2]] == pytest.approx(iou[TREATMENTS[0]])


def test_random_patches_are_as_many_and_settled_by_the_image():
    from crate_analysis.segmentation.artifacts import _elsewhere

    outliers = torch.arange(40).view(2, 20) % 7 == 0
    drawn = _elsewhere(outliers, [4, 9], seed=0)
    assert drawn.sum(1).tolist() == outliers.sum(1).tolist()
    assert torch.equal(drawn[1:], _elsewhere(outliers[1:], [9], seed=0))
    assert not torch.equal(drawn, outliers)
