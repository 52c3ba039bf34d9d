"""Images of several animals: instance masks, occlusion, determinism."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from crate_analysis.datasets import load_dataset


@pytest.fixture(scope="module")
def scenes():
    return load_dataset("creatures-scenes", image_size=64, limit=24)


def test_defaults():
    dataset = load_dataset("creatures-scenes", limit=1)
    assert dataset.image_size == 224
    assert dataset[0].image.shape == (3, 224, 224)
    assert dataset.classes == load_dataset("creatures").classes


def test_one_to_three_disjoint_animals(scenes):
    counts = set()
    for sample in scenes:
        counts.add(len(sample.mask_names))
        assert sample.label is None
        assert set(sample.mask_names) <= set(scenes.classes)
        assert sample.masks.flatten(1).any(1).all()
        assert sample.masks.sum(0).max() == 1
    assert counts == {1, 2, 3}


def test_an_item_is_the_same_again_and_at_any_size(scenes):
    assert torch.equal(scenes[7].image, scenes[7].image)
    large = load_dataset("creatures-scenes", image_size=128)
    for index in range(8):
        small, big = scenes[index], large[index]
        assert small.mask_names == big.mask_names
        halved = big.masks.reshape(-1, 64, 2, 64, 2).sum((2, 4)) > 2
        both = (halved & small.masks).flatten(1).sum(1)
        either = (halved | small.masks).flatten(1).sum(1)
        assert (both / either > 0.85).all()


def test_nearer_animals_hide_those_behind_but_not_altogether(scenes):
    """Masks run from back to front, and what is hidden of an animal is less than half of it."""
    overlaps = 0
    for index in range(len(scenes)):
        masks = scenes[index].masks
        lowest = [int(mask.any(1).nonzero().max()) for mask in masks]
        assert all(a <= b + 3 for a, b in pairwise(lowest))
        grown = torch.nn.functional.max_pool2d(masks.float(), 3, 1, 1) > 0
        overlaps += bool((grown.sum(0) > 1).any())
        assert masks.flatten(1).sum(1).min() > 0.01 * 64 * 64
    assert overlaps > 2


def test_parts_make_up_the_instances(scenes):
    for index in range(10):
        sample, parts = scenes[index], scenes.parts(index)
        assert len(parts) == len(sample.masks)
        for whole, (masks, names) in zip(sample.masks, parts, strict=True):
            assert len(names) == len(masks)
            assert torch.equal(masks.sum(0), whole.long())


def test_outside_the_masks_is_the_background(scenes):
    for index in range(5):
        sample = scenes[index]
        grown = torch.nn.functional.max_pool2d(sample.masks.float(), 5, 1, 2).amax(0) > 0
        same = (scenes.background(index) == sample.image).all(0)
        assert same[~grown].all()
