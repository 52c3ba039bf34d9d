"""Patches that ask, of networks whose answers are known."""

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.segmentation import blob_about, centre_attention, image_specific, query_scores
from crate_analysis.walk import Reading


def test_a_blob_lies_about_its_patch():
    about = blob_about(torch.tensor([[[2, 3], [0, 0]]]), (5, 7))
    torch.testing.assert_close(about[0, 0], centre_attention(5, 7))
    assert about.shape == (1, 2, 5, 7) and about[0, 1].argmax() == 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("vit_micro_patch6_72.creatures").eval()


def test_even_answers_score_what_objects_cover_and_nothing_of_it_is_the_images(model):
    for layer in model.layers:  # neither queries nor keys, so that all are given the same
        torch.nn.init.zeros_(layer.attn.qkv.weight)
        torch.nn.init.zeros_(layer.attn.qkv.bias)
    data = load_dataset("creatures", "val", 72, limit=5)
    found = query_scores(model, data, -1, reading=Reading(batch_size=2))
    own = found[found["maps"] == "own"]
    # the patch that asks is left out: an object's patch lowers the share, another one raises it
    expected = (own["share"] * 144 - (own["query"] == "inside")) / 143
    assert own.attention.tolist() == pytest.approx(expected.tolist(), abs=2e-3)
    assert image_specific(found, "attention").image_specific.abs().max() < 1e-5


def test_images_without_objects_are_an_error(model):
    with pytest.raises(ValueError, match="0 images have a place inside"):
        query_scores(model, torch.zeros(2, 3, 72, 72, dtype=torch.uint8))
