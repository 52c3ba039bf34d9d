"""The one-pass evaluation against the plain one, picture by picture."""

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import Sample
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import (
    Truth,
    attention_iou,
    attention_mask,
    baseline_iou,
    best_head_iou,
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
    assert list(frame.columns) == ["model", "layer", "rule", "image", "mask", "head", "iou"]
    assert frame.iou.between(0, 1).all()


def test_baselines_are_ordered_as_they_must_be(pictures):
    pictures = load_dataset("creatures", "dev", image_size=72, limit=40)
    frame = baseline_iou(pictures, patch_size=6, heads=4, rules=["mass"])
    best = frame[frame["mask"] == "animal"].groupby(["model", "image"]).iou.max()
    means = best.groupby("model").mean()
    assert means["random maps"] < means["centre prior"] < means["patch ceiling"] < 1
    again = baseline_iou(pictures, patch_size=6, heads=4, rules=["mass"], batch_size=40)
    assert again[again.model == "patch ceiling"].iou.mean() == pytest.approx(
        frame[frame.model == "patch ceiling"].iou.mean()
    )


def test_pictures_without_masks_are_refused(model, tmp_path, pictures):
    from PIL import Image

    Image.fromarray(pictures[0].image.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="the data set has no masks to compare with"):
        attention_iou(model, load_dataset(f"folder:{tmp_path}"))


def test_the_best_head_of_each_picture_by_hand():
    left, right = torch.zeros(2, 4, 4, dtype=torch.bool)
    left[:, :2] = right[:, 2:] = True
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    both = Sample(image, None, torch.stack([left, right]), ("cat", "dog"), "a")
    part = Sample(image, None, torch.stack([left, right]), ("cat", "tail"), "b")
    none = Sample(image, None, right[None], ("tail",), "c")
    heads = torch.tensor([[[True, False], [True, False]], [[True, True], [True, True]]])
    truth = Truth([both, part, none], [7, 8, 9], (2, 2))
    frame = truth.best_head_iou(heads.expand(3, 2, 2, 2), leave_out=["tail"])
    # the cat has IoU 1 with the first head, the dog 0 with it and 1/2 with the second
    assert frame.to_dict("list") == {"image": [7, 8], "iou": [0.75, 1.0]}
