"""Networks whose maps are planted, against rivals that had the same choice."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from crate_analysis import build_model
from crate_analysis.datasets import Sample
from crate_analysis.measures import cross_fit, mean_interval
from crate_analysis.models import UnrolledModel
from crate_analysis.segmentation import (
    RIVALS,
    Scoring,
    best_heads,
    image_specific,
    location_prior,
    mean_masks,
    scores_with_rivals,
)
from crate_analysis.walk import Reading

GRID, PATCH, HEADS = 6, 2, 4


def sample(index):
    """A rectangle somewhere, with a part that is its upper half; the index is in the pixels."""
    rng = np.random.default_rng(index)
    top, left = rng.integers(0, 4, 2)
    whole = torch.zeros(GRID, GRID, dtype=torch.bool)
    whole[top : top + 2 + rng.integers(2), left : left + 2 + rng.integers(2)] = True
    part = whole.clone()
    part[top + 1 :] = False
    masks = torch.stack([whole, part]).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    pixels = torch.zeros(3, GRID * PATCH, GRID * PATCH, dtype=torch.uint8)
    pixels[:, 0, 0] = index
    return Sample(pixels, None, masks, ("thing", "head"), str(index), part_of=(None, 0))


DATA = [sample(index) for index in range(80)]
TRAIN = [sample(index) for index in range(100, 200)]


class Planted(UnrolledModel):
    """Two layers of four heads whose maps are a function of the image's index and the layer."""

    def __init__(self, maps):
        super().__init__(build_model("crate_micro_patch6_72.creatures", patch_size=PATCH).config)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.name, self.maps = "planted", maps

    @property
    def layers(self):
        return [None, None]

    def unroll(self, images, edits=()):
        mean, std = self.config.pixel_mean[0], self.config.pixel_std[0]
        indices = [round(255 * (one[0, 0, 0].item() * std + mean)) for one in images]
        for layer in range(2):
            maps = torch.stack([self.maps(index, layer).flatten(1) for index in indices])
            rows = torch.cat([torch.zeros(len(maps), HEADS, 1), maps], -1)[:, :, None]
            read = {"attention": lambda rows=rows: rows, "check_edits_read": lambda: None}
            yield SimpleNamespace(index=layer, **read)


def noise(seed):
    return torch.rand(HEADS, GRID, GRID, generator=torch.Generator().manual_seed(seed))


def truth(index, layer):
    return sample(index).masks[:1, ::PATCH, ::PATCH].float().expand(HEADS, -1, -1)


def compared(maps, scoring=Scoring(0.99), **options):  # noqa: B008
    return scores_with_rivals(Planted(maps), DATA, TRAIN, scoring, **options)


@pytest.fixture(scope="module")
def exact():
    return compared(
        truth, Scoring(0.99, within=("image", "object")), reading=Reading(batch_size=32)
    )


@pytest.mark.parametrize("value", ["iou", "attention", "average_precision"])
@pytest.mark.parametrize("maps", [lambda i, n: noise(n), lambda i, n: noise(2 * i + n)])
def test_maps_that_ignore_the_image_have_nothing_specific(maps, value):
    """The same maps for all images, and noise of their own for each."""
    specific = image_specific(best_heads(compared(maps), value), value)
    chosen = cross_fit(specific, "layer", value)
    found = mean_interval(chosen.image_specific)
    assert found.low <= 1e-9 and found.high >= -1e-9
    assert abs(found.mean) < 0.05


def test_maps_that_are_the_truth_reach_the_ceiling(exact):
    here = exact[exact.within == "image"]
    best = best_heads(here).groupby("maps").iou.mean()
    assert best["own"] == pytest.approx(1) and best["patch ceiling"] == 1
    assert best["own"] > best["k-means masks"] > best["mean mask"]
    specific = mean_interval(image_specific(best_heads(here)).image_specific)
    assert specific.low > 0.4


def test_every_rival_has_the_same_masks_and_its_share_of_the_choice(exact):
    assert set(exact["maps"]) == {"own", *RIVALS} and set(exact.model) == {"planted"}
    here = exact[exact.within == "image"]
    heads = here.groupby("maps")["head"].nunique().to_dict()
    assert heads == {
        **{name: HEADS for name in ("own", "other images", "k-means masks", "random maps")},
        **{name: 1 for name in ("mean mask", "location prior", "patch ceiling")},
    }
    assert here[here["maps"] == "other images"].layer.unique().tolist() == [0, 1]
    masks = here.groupby("maps")[["image", "place"]].apply(
        lambda rows: set(map(tuple, rows.values))
    )
    assert all(seen == {(i, place) for i in range(80) for place in (0, 1)} for seen in masks)
    assert set(exact[exact.within == "object"]["mask"]) == {"head"}
    assert here[here["maps"] == "patch ceiling"].iou.min() == 1


def test_maps_of_others_are_never_ones_own():
    """Each image's maps say which image they are of: a map that matches would score 1."""
    own_patch = lambda i, n: torch.eye(GRID**2)[i % 36].view(1, GRID, GRID).expand(HEADS, -1, -1)  # noqa: E731
    data = []
    for index in range(36):
        one = sample(index)
        masks = own_patch(index, 0)[:1].bool().repeat_interleave(PATCH, 1)
        masks = masks.repeat_interleave(PATCH, 2)
        data.append(Sample(one.image, None, masks, ("thing",), str(index)))
    frame = scores_with_rivals(
        Planted(own_patch), data, TRAIN, rivals=["other images"], draws=20, layers=[0]
    )
    assert (frame[frame["maps"] == "own"].iou == 1).all()
    others = frame[frame["maps"] == "other images"]
    assert (others.iou == 0).all() and others.draw.nunique() == 20


def test_the_same_whatever_the_batch_and_another_draw_with_another_seed(exact):
    scoring = Scoring(0.99, within=("image", "object"))
    again = compared(truth, scoring, reading=Reading(batch_size=7))
    keys = ["maps", "draw", "layer", "within", "image", "place", "head"]
    ordered = [frame.sort_values(keys, ignore_index=True) for frame in (exact, again)]
    pd.testing.assert_frame_equal(*ordered)
    other = compared(truth, scoring, seed=1, rivals=["other images", "random maps"])
    for name in ("other images", "random maps"):
        one, two = (frame[frame["maps"] == name].iou.to_numpy() for frame in (exact, other))
        assert not np.array_equal(one, two)


def test_a_name_that_training_lacks_has_no_prior():
    renamed = [
        Sample(one.image, None, one.masks, ("new", "head"), one.path, part_of=one.part_of)
        for one in DATA
    ]
    frame = scores_with_rivals(Planted(truth), renamed, TRAIN, rivals=["location prior"])
    assert set(frame[frame["maps"] == "location prior"]["mask"]) == {"head"}


def test_a_part_and_an_object_of_one_name_have_their_own_priors():
    same = [
        Sample(one.image, None, one.masks, ("head", "head"), one.path, part_of=one.part_of)
        for one in TRAIN
    ]
    prior = location_prior(same, (GRID, GRID))
    assert set(prior) == {("head", False), ("head", True)}
    assert (prior["head", False] > prior["head", True]).any()


def test_the_location_prior_and_the_mean_mask_are_means():
    prior = location_prior(TRAIN, (GRID, GRID), reading=Reading(batch_size=7))
    cover = torch.stack([one.masks[:, ::PATCH, ::PATCH] for one in TRAIN]).float()
    torch.testing.assert_close(prior["thing", False], cover[:, 0].mean(0))
    torch.testing.assert_close(prior["head", True], cover[:, 1].mean(0))
    [mean] = mean_masks(TRAIN, (GRID, GRID), 1)
    torch.testing.assert_close(mean, cover[:, 0].mean(0))


def test_as_many_mean_masks_as_there_are_kinds_are_those_kinds():
    kinds = [sample(index) for index in (1, 2, 3)]
    found = mean_masks([kinds[index % 3] for index in range(30)], (GRID, GRID), 3)
    expected = torch.stack([one.masks[0, ::PATCH, ::PATCH].float() for one in kinds])
    matched = (found[:, None] - expected).abs().amax((-2, -1)).argmin(1)
    torch.testing.assert_close(found, expected[matched])
    assert sorted(matched.tolist()) == [0, 1, 2]


def test_shares_are_of_what_counts():
    """A quarter of a patch is undecided in one image of two."""
    void = torch.zeros(GRID * PATCH, GRID * PATCH, dtype=torch.bool)
    void[0, 0] = True
    masks = torch.zeros(1, GRID * PATCH, GRID * PATCH, dtype=torch.bool)
    masks[0, :PATCH, :PATCH] = True
    image = sample(0).image
    two = [
        Sample(image, None, masks, ("a",), "", void=void),
        Sample(image, None, ~masks, ("a",), ""),
    ]
    assert location_prior(two, (GRID, GRID))["a", False][0, 0].item() == pytest.approx(3 / 7)


def test_wrong_requests():
    with pytest.raises(ValueError, match="there is no rival 'others'; there are other images, "):
        compared(truth, rivals=["others"])
    with pytest.raises(ValueError, match="draws=0 must be at least 1"):
        compared(truth, draws=0)
    with pytest.raises(ValueError, match="one image has no maps of other images"):
        scores_with_rivals(Planted(truth), DATA[:1], TRAIN)
    with pytest.raises(ValueError, match="3 objects of the training images make no 4 mean masks"):
        scores_with_rivals(Planted(truth), DATA, TRAIN[:3])
    with pytest.raises(ValueError, match="which a grid of 5 x 5 patches does not divide"):
        mean_masks(TRAIN, (5, 5), 1)
    bare = [Sample(one.image, None, one.masks[:0], (), "") for one in TRAIN]
    with pytest.raises(ValueError, match="the data set has no masks"):
        scores_with_rivals(Planted(truth), DATA, bare)
    own = compared(truth, rivals=["random maps"])
    with pytest.raises(ValueError, match="scores hold no maps of 'other images'"):
        image_specific(own)
