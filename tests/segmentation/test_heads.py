"""Heads that were planted are found, scored as they must be, and chosen."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import Sample, SampleDataset
from crate_analysis.models import UnrolledModel
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import (
    Scoring,
    agreement_intervals,
    attention_iou,
    attention_mask,
    choose_heads,
    head_agreement,
    head_scores,
    to_pixels,
)
from crate_analysis.walk import Reading

PATCH = 2
# an animal of 6 of 16 patches: two of body, one of head, three of legs
ANIMAL = ["....", ".HBB", ".LLL", "...."]


class Drawn(SampleDataset):
    """The animal above, moved down a patch in every other image."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        letters = np.roll([list(row) for row in ANIMAL], index % 2, axis=0)
        letters = letters.repeat(PATCH, 0).repeat(PATCH, 1)
        planes = [letters != ".", letters == "B", letters == "H", letters == "L"]
        return Sample(
            image=torch.full((3, 8, 8), index, dtype=torch.uint8),
            label=index % 2,
            masks=torch.from_numpy(np.stack(planes)),
            mask_names=("animal", "body", "head", "legs"),
            path=str(index),
            part_of=(None, 0, 0, 0),
        )


class Planted(UnrolledModel):
    """Two layers of three heads; the last head of the first layer attends to the legs, alike."""

    def __init__(self):
        super().__init__(build_model("crate_micro_patch6_72.creatures", patch_size=PATCH).config)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.name = "planted"

    @property
    def layers(self):
        return [None, None]

    def unroll(self, images, edits=()):
        which = self.indices(images)
        legs = torch.stack([Drawn()[i].masks[3, ::PATCH, ::PATCH].flatten() for i in which])
        flat = torch.full(legs.shape, 1 / 17)
        sharp = legs / legs.sum(-1, keepdim=True)
        noise = torch.stack([self.noise(i) for i in which])
        for layer, heads in enumerate([[flat, noise, sharp], [noise, noise, flat]]):
            maps = torch.cat([torch.zeros(len(which), 3, 1), torch.stack(heads, 1)], -1)
            yield SimpleNamespace(index=layer, attention=lambda maps=maps: maps[:, :, None])

    def indices(self, images):
        mean, std = self.config.pixel_mean[0], self.config.pixel_std[0]
        return [round(255 * (image[0, 0, 0].item() * std + mean)) for image in images]

    @staticmethod
    def noise(index):
        return torch.rand(16, generator=torch.Generator().manual_seed(index)) / 16


@pytest.fixture(scope="module")
def planted():
    # 90 % of the mass of three equal patches needs all three
    return head_scores(
        Planted(), Drawn(), Scoring(0.9, within=("image", "object")), reading=Reading(batch_size=4)
    )


def test_a_planted_head_is_perfect_and_chosen(planted):
    at = planted[(planted["mask"] == "legs") & (planted.layer == 0) & (planted["head"] == 2)]
    assert len(at) == 2 * len(Drawn())
    assert (at[["iou", "average_precision"]] == 1).all(axis=None)
    chosen = choose_heads(planted).set_index(["within", "mask"])
    for within in ("image", "object"):
        row = chosen.loc[within, "legs"]
        assert (row.layer, row["head"], row.average_precision) == (0, 2, 1)


def test_a_flat_head_scores_the_share(planted):
    flat = planted[(planted.layer == 0) & (planted["head"] == 0)]
    assert flat.average_precision.to_numpy() == pytest.approx(flat.share.to_numpy())
    shares = flat.groupby(["within", "mask"]).share.mean()
    assert shares["image", "legs"] == pytest.approx(3 / 16)
    assert shares["object", "legs"] == pytest.approx(3 / 6)
    assert ("object", "animal") not in shares.index


def test_to_find_the_animal_is_no_merit_within_it(planted):
    """The sharp head is as good as none at telling body from head, though it avoids both."""
    at = planted[(planted.layer == 0) & (planted["head"] == 2)].groupby(["within", "mask"])
    scores = at.average_precision.mean()
    assert scores["image", "animal"] == pytest.approx(3 / 6 * 1 + 3 / 6 * 6 / 16)
    assert scores["object", "body"] == pytest.approx(2 / 6)  # all of it at the last threshold


def test_only_what_lies_within_counts_of_a_part_that_sticks_out():
    """A part of two patches, one of them outside of its object."""
    whole, part = torch.zeros(2, 8, 8, dtype=torch.bool)
    whole[:4, :4] = part[:2, 2:6] = True
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    sample = Sample(image, None, torch.stack([part, whole]), ("a", "b"), "", part_of=(1, None))
    scoring = Scoring(within=("object",))
    rows = scoring.score(scoring.truth([sample], [0], (4, 4)), torch.zeros(1, 1, 4, 4))
    assert rows[["place", "share"]].to_numpy().tolist() == [[0, 1 / 4]]


def test_scores_are_those_of_the_plain_measures():
    torch.manual_seed(0)
    model = build_model("crate_micro_patch6_72.creatures", dim=32, depth=2, patch_size=12).eval()
    pictures = load_dataset("creatures", "dev", 72, limit=5)
    frame = head_scores(
        model, pictures, Scoring(within=("image", "object")), reading=Reading(batch_size=2)
    )
    plain = attention_iou(model, pictures, rules=["mass"])
    keys = ["layer", "image", "mask", "head"]
    here = frame[frame.within == "image"].set_index(keys).iou.sort_index()
    pd.testing.assert_series_equal(here, plain.set_index(keys).iou.sort_index())

    from sklearn.metrics import average_precision_score

    found = frame.set_index(["within", *keys])
    for index, sample in enumerate(pictures):
        maps = cls_attention(model, model.normalize(sample.image[None]), 1)[0]
        scores = maps.repeat_interleave(12, -1).repeat_interleave(12, -2).flatten(1).numpy()
        bright = to_pixels(attention_mask(maps), 72, 72).flatten(1).numpy()
        animal = sample.masks[0].flatten().numpy()
        for name, mask in zip(sample.mask_names, sample.masks.flatten(1).numpy(), strict=True):
            for head, score in enumerate(scores):
                expected = average_precision_score(mask, score)
                got = found.average_precision["image", 1, index, name, head]
                assert got == pytest.approx(expected, abs=1e-5)
                if name != "animal":
                    expected = average_precision_score(mask[animal], score[animal])
                    got = found.average_precision["object", 1, index, name, head]
                    assert got == pytest.approx(expected, abs=1e-5)
                    lit = bright[head] & animal
                    expected = (lit & mask).sum() / (lit | mask).sum()
                    assert found.iou["object", 1, index, name, head] == pytest.approx(expected)


def test_images_without_masks_are_refused(tmp_path):
    from PIL import Image

    Image.new("RGB", (72, 72)).save(tmp_path / "a.png")
    model = build_model("crate_micro_patch6_72.creatures")
    with pytest.raises(ValueError, match="the data set has no masks to compare with"):
        head_scores(model, load_dataset(f"folder:{tmp_path}"))


def test_wrong_requests(unchecked):
    whole = [replace(Drawn()[0], part_of=())] * 2
    with pytest.raises(ValueError, match=r"no mask is part of another one here"):
        head_scores(Planted(), whole, Scoring(within=("image", "object")))
    with pytest.raises(ValueError, match="within='animal' is not one of image, object"):
        Scoring(within=("animal",))
    with pytest.raises(ValueError, match=r"keep=1.2 must be a share in \(0, 1\]"):
        Scoring(keep=1.2)
    none = {"none": np.zeros((2, 2), dtype=bool)}
    with pytest.raises(ValueError, match="pairs 'none' hold no entry"):
        agreement_intervals(np.zeros((1, 4, 2)), np.array([0, 0, 1, 1]), none)


def test_the_head_with_the_highest_mean_is_chosen_and_the_first_of_equals():
    frame = pd.DataFrame(
        [("a", "image", "legs", layer, head, image, score)
         for layer, head, scores in [(0, 0, (0.2, 0.4)), (0, 1, (0.9, 0.1)), (1, 0, (0.6, 0.4))]
         for image, score in enumerate(scores)],
        columns=["model", "within", "mask", "layer", "head", "image", "average_precision"],
    )  # fmt: skip
    chosen = choose_heads(frame)
    assert chosen[["layer", "head", "average_precision"]].values.tolist() == [[0, 1, 0.5]]


def two_kinds(order_of_second):
    """Six heads in one order for the first kind of image and in another for the second."""
    rng = np.random.default_rng(0)
    groups = np.array(["a", "b"] * 20)
    orders = {"a": np.arange(6.0), "b": np.array(order_of_second, float)}
    values = np.stack([orders[g] for g in groups]) + 0.01 * rng.standard_normal((40, 6))
    return values, groups


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (1, 0, 2, 5, 4, 3)])
def test_agreement_is_the_rank_correlation_of_the_orders(order):
    values, groups = two_kinds(order)
    expected = spearmanr(np.arange(6), order).statistic
    found = head_agreement(values, groups)
    np.testing.assert_allclose(found, [[1, expected], [expected, 1]], atol=1e-12)


def test_the_diagonal_is_what_noise_allows():
    """Heads that do not differ agree with nobody, not even with themselves on other images."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 20)
    found = head_agreement(rng.standard_normal((300, 160, 12)), groups)
    assert abs(found.mean()) < 0.01
    assert abs(np.diagonal(found, axis1=-2, axis2=-1).mean()) < 0.03


def test_pictures_without_the_part_are_left_out():
    values, groups = two_kinds((0, 1, 2, 3, 4, 5))
    values[groups == "b"] = np.nan
    found = head_agreement(values, groups)
    assert found[0, 0] == pytest.approx(1) and np.isnan(found[0, 1]) and np.isnan(found[1, 1])


def test_intervals_hold_the_mean_and_narrow_with_more_pictures():
    rng = np.random.default_rng(0)
    order = np.arange(12.0)
    widths = []
    for n in (40, 400):
        groups = np.tile(np.arange(4), n)
        values = (order + 20 * rng.standard_normal((4 * n, 12)))[None]
        pairs = {"self": np.eye(4, dtype=bool), "others": ~np.eye(4, dtype=bool)}
        frame = agreement_intervals(values, groups, pairs).set_index("pairs")
        assert ((frame.low <= frame["mean"]) & (frame["mean"] <= frame.high)).all()
        agreement = head_agreement(values[0], groups)
        assert frame["mean"]["self"] == pytest.approx(np.diag(agreement).mean())
        widths.append(frame.high["others"] - frame.low["others"])
    assert widths[1] < widths[0] / 2


def test_one_head_has_nobody_to_agree_with():
    with pytest.raises(ValueError, match="give the scores of at least 2"):
        head_agreement(np.zeros((4, 1)), np.array([0, 0, 1, 1]))
