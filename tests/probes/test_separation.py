"""The first component against the truth, layer by layer."""

import pytest
import torch

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import Sample
from crate_analysis.probes import collect, patch_keys, pca_scores, pca_separation
from crate_analysis.walk import Reading


@pytest.fixture(scope="module")
def model():
    return load_model("crate-creatures")


def test_each_layer_is_one_pca_of_all_images(model):
    data = load_dataset("creatures", "val", 72, limit=3)
    frame = pca_separation(model, data, Reading(batch_size=2))
    assert list(frame) == ["model", "layer", "image", "auc"] and len(frame) == 18
    scores = pca_scores(collect(model, data, {"k": patch_keys}, [3])["k"][:, 0], (12, 12), 1)
    for image, own in enumerate(scores[..., 0]):
        animal = data[image].masks[0].float().unflatten(1, (12, 6)).unflatten(0, (12, 6))
        on = animal.mean((1, 3)).flatten() >= 0.5
        pairs = own[on][:, None] - own[~on][None]  # worked out: the share of pairs in order
        by_hand = ((pairs > 0).float() + (pairs == 0).float() / 2).mean().item()
        found = frame[(frame.layer == 3) & (frame.image == image)].auc.item()
        assert found == pytest.approx(by_hand, abs=1e-6)


def test_an_object_of_another_colour_than_all_else_is_told_apart(model):
    images = []
    for left in (24, 30):
        mask = torch.zeros(72, 72, dtype=torch.bool)
        mask[24:48, left : left + 24] = True
        image = torch.where(mask, torch.tensor([230, 40, 30])[:, None, None], 120).to(torch.uint8)
        images.append(Sample(image, None, mask[None], ("square",), "planted"))
    assert (pca_separation(model, images).groupby("layer").auc.mean() > 0.9).any()


def test_an_image_without_objects_has_no_value(model):
    images = [load_dataset("creatures", "val", 72, limit=1)[0]]
    bare = Sample(images[0].image.flip(2), None, torch.zeros(0, 72, 72).bool(), (), "bare")
    frame = pca_separation(model, [*images, bare])
    assert frame[frame.image == 1].auc.isna().all() and frame[frame.image == 0].auc.notna().all()
