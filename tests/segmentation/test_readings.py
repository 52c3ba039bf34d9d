"""The paper's mIoU in every reading: DINO's own procedure written out, and cases by hand."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from crate_analysis import build_model, load_dataset
from crate_analysis.measures import interval_frame
from crate_analysis.segmentation import DINO, READINGS, best_heads, head_scores, iou_readings
from crate_analysis.walk import Reading

PATCH = 12


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("vit_micro_patch6_72.creatures", dim=32, depth=2, patch_size=PATCH).eval()


@pytest.fixture(scope="module")
def scenes():
    """Several animals an image, some of one name, with a void seam."""
    samples = []
    for sample in load_dataset("creatures-scenes", "dev", 72, limit=8):
        void = torch.zeros(72, 72, dtype=torch.bool)
        void[:, 30:36] = True
        masks = sample.masks & ~void
        names = ("cat", "dog", "cat")[: len(masks)]
        samples.append(replace(sample, masks=masks, mask_names=names, part_of=(), void=void))
    return samples


@pytest.fixture(scope="module")
def frame(model, scenes):
    return iou_readings(model, scenes, reading=Reading(batch_size=3))


def written_out(model, samples):
    """Step by step: attention of the last layer, its threshold, nearest pixels, the Jaccard index.

    The smallest entries are dropped until 40 % of a head's mass is gone.
    """
    total = 0.0
    for sample in samples:
        with torch.no_grad():
            *_, last = model.unroll(model.normalize(sample.image[None]))
            rows = last.attention()[0, :, 0, 1:]
        side = 72 // PATCH
        values, places = torch.sort(rows / rows.sum(1, keepdim=True))
        kept = torch.cumsum(values, 1) > 1 - 0.6
        masks = torch.zeros_like(rows).scatter(1, places, kept.float()).reshape(-1, side, side)
        pixels = F.interpolate(masks[None], scale_factor=PATCH, mode="nearest")[0]
        jaccards = []
        for truth in sample.masks.float():
            intersection = (truth * pixels).sum((1, 2))
            union = ((truth + pixels) > 0).sum((1, 2))
            jaccards.append((intersection / union).max().item())
        total += sum(jaccards) / len(jaccards)
    return total / len(samples)


def test_dinos_own_procedure_is_one_of_the_readings(model, scenes, frame):
    last = frame[frame.layer == 1]
    row = last.loc[(last[list(DINO)] == pd.Series(DINO)).all(axis=1)]
    assert row["image"].tolist() == list(range(8))
    assert row.iou.mean() == pytest.approx(written_out(model, scenes), abs=1e-6)


def test_every_reading_has_every_image(frame):
    table = interval_frame(frame, "iou", READINGS)
    assert len(table) == 2 * 2 * 2 * 2 * 2 and (table.images == 8).all()
    assert table["size"].unique().tolist() == [72]


def test_readings_differ_where_they_must(frame):
    means = frame.groupby(["undecided", "unit", "head"]).iou.mean()
    assert means["left out", "object", "per mask"] > means["background", "object", "per mask"]
    assert means["left out", "object", "per mask"] > means["left out", "object", "fixed"]
    assert means["left out", "class", "per mask"] != means["left out", "object", "per mask"]


def test_the_default_of_head_scores_is_one_of_them(model, scenes, frame):
    best = best_heads(head_scores(model, scenes)).set_index(["layer", "image"]).iou
    default = {"rule": "mass", "undecided": "left out", "unit": "object", "head": "per mask"}
    here = frame.loc[(frame[list(default)] == pd.Series(default)).all(axis=1)]
    pd.testing.assert_series_equal(
        here.set_index(["layer", "image"]).iou.sort_index(), best.sort_index()
    )


def test_a_fixed_head_is_chosen_on_the_other_half(model, scenes, frame):
    scores = head_scores(model, scenes)
    scores = scores[scores.layer == 0].groupby(["head", "image"]).iou.mean().unstack()
    odd = scores.columns % 2 == 1
    even_head, odd_head = (
        scores.loc[:, odd].mean(axis=1).idxmax(),
        scores.loc[:, ~odd].mean(axis=1).idxmax(),
    )
    fixed = {"rule": "mass", "undecided": "left out", "unit": "object", "head": "fixed", "layer": 0}
    found = frame.loc[(frame[list(fixed)] == pd.Series(fixed)).all(axis=1)].set_index("image").iou
    for image, value in found.items():
        assert value == pytest.approx(scores.loc[odd_head if image % 2 else even_head, image])


def test_data_without_masks_are_refused(model):
    pixels = torch.zeros(2, 3, 72, 72, dtype=torch.uint8)
    with pytest.raises(ValueError, match="the data set has no masks to compare with"):
        iou_readings(model, pixels)
