"""What noise does to a network, on networks and images of which some of it is known."""

import numpy as np
import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets.noise import Noise
from crate_analysis.probes import compare_maps, embedding_change, under_noise


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("crate_micro_patch6_72.creatures").eval()


def test_no_noise_changes_nothing_and_more_noise_leaves_less(model):
    data = load_dataset("creatures", "val", 72, limit=6)
    found = under_noise(model, data, [Noise(0.0, 0.0), Noise(0.5, 25.0), Noise(0.5, 250.0)])
    assert found.kept[:6].tolist() == pytest.approx([1.0] * 6)
    means = found.groupby("level").similarity.mean()
    assert means[0] > means[1] > means[2]
    assert set(found.hit) <= {0.0, 1.0} and found.image.tolist() == [*range(6)] * 3


def test_a_class_that_the_network_cannot_know_is_no_miss(model):
    images = torch.randint(0, 255, (3, 3, 72, 72), dtype=torch.uint8)
    assert under_noise(model, images, [Noise(0.5, 25.0)]).hit.isna().all()


def test_the_embedding_moves_with_the_noise_and_patches_are_parted_by_contrast(model):
    data = load_dataset("creatures", "val", 72, limit=4)
    found = embedding_change(model, data, [Noise(0.0, 0.0), Noise(0.5, 25.0), Noise(0.5, 50.0)])
    means = found.groupby(["level", "patches"]).change.mean().unstack()
    assert np.all(means.loc[0] == 0)
    assert np.all(means.loc[2] > means.loc[1]) and np.all(means.loc[1] > 0)
    # each patch is normalised before it is embedded, so that even ones move most
    assert means.loc[1, "low contrast"] > means.loc[1, "high contrast"]


def test_larger_images_are_compared_on_the_grid_of_the_originals(model):
    small, large = (load_dataset("creatures", "val", side, limit=3) for side in (72, 144))
    found = compare_maps(model, small, {1.0: small, 2.0: large}, -1)
    assert found.version.tolist() == [1.0] * 3 + [2.0] * 3
    assert found.kept[:3].tolist() == pytest.approx([1.0] * 3)
    assert found.similarity[3:].between(0.3, 0.999).all()
    with pytest.raises(ValueError, match="image 2 of version 'more'"):
        compare_maps(model, [small[0], small[1]], {"more": small})
