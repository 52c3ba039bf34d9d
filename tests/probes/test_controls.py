"""Shuffled patches, accuracy under changes, raw pixels: by hand."""

from dataclasses import replace

import pytest
import torch

from crate_analysis import build_model, load_dataset, load_model
from crate_analysis.datasets import Sample
from crate_analysis.interventions import ablate_head
from crate_analysis.probes import accuracy_under, mirror, pixel_features, shuffle_patches
from crate_analysis.walk import Reading

SIDE, PATCH = 8, 2


def numbered(path="a"):
    """Each patch has a number as its colour; an object covers a quarter of the image."""
    number = torch.arange(16, dtype=torch.uint8).view(4, 4)
    pixels = number.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    pixels = pixels + 16 * torch.arange(4, dtype=torch.uint8).view(2, 2).repeat(4, 4)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:6, 2:6] = True
    mask[0, 0] = True  # a quarter of the first patch, which is no object's
    part = mask.clone()
    part[4:] = False
    void = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    void[:, 7] = True
    planes = torch.stack([mask, part])
    return Sample(
        pixels.expand(3, -1, -1).clone(), 0, planes, ("x", "x"), path, void=void, part_of=(None, 0)
    )


def patches(image):
    cells = image[0].unflatten(1, (-1, PATCH)).unflatten(0, (-1, PATCH))
    return cells.permute(0, 2, 1, 3).reshape(16, 4)


def test_patches_are_moved_whole():
    before, after = numbered(), shuffle_patches(numbered(), PATCH)
    moved = (patches(after.image)[:, 0] % 16).tolist()
    assert sorted(moved) == list(range(16)) and moved != list(range(16))
    assert torch.equal(patches(after.image), patches(before.image)[moved])


def test_the_truth_moves_along():
    before, after = numbered(), shuffle_patches(numbered(), PATCH)
    for index in (0, 1):
        on = [sample.image[0][sample.masks[index]].sort().values for sample in (before, after)]
        assert torch.equal(*on)
    assert torch.equal(*(s.image[0][s.void].sort().values for s in (before, after)))
    assert after.part_of == before.part_of and after.label == before.label


def test_patches_of_objects_are_moved_among_themselves():
    inside = [5, 6, 9, 10]
    orders = set()
    for seed in range(10):
        after = shuffle_patches(numbered(), PATCH, "objects", seed)
        moved = (patches(after.image)[:, 0] % 16).tolist()
        assert [moved[place] for place in range(16) if place not in inside] == [
            place for place in range(16) if place not in inside
        ]
        assert sorted(moved[place] for place in inside) == inside
        orders.add(tuple(moved))
    assert len(orders) > 3


def test_the_order_is_the_samples_own_and_the_same_again():
    a, again, b = (shuffle_patches(numbered(path), PATCH).image for path in "aab")
    assert torch.equal(a, again) and not torch.equal(a, b)
    assert not torch.equal(a, shuffle_patches(numbered(), PATCH, seed=1).image)


def test_wrong_requests(unchecked):
    with pytest.raises(ValueError, match="where='animal' is not one of image, objects"):
        shuffle_patches(numbered(), PATCH, "animal")
    with pytest.raises(ValueError, match="a is 8 x 8 pixels, which patch_size=3 does not divide"):
        shuffle_patches(numbered(), 3)
    bare = replace(
        numbered(), masks=torch.zeros(0, 8, 8, dtype=torch.bool), mask_names=(), part_of=()
    )
    with pytest.raises(ValueError, match="a has no masks, so no objects to shuffle"):
        shuffle_patches(bare, PATCH, "objects")
    model = build_model("crate_micro_patch6_72.creatures", num_classes=2, dim=16, depth=1, heads=2)
    samples = list(load_dataset("creatures", "val", 72, limit=3))
    for label in (None, 5):
        with pytest.raises(ValueError, match=f"has the label {label}, and the classifier of"):
            accuracy_under(model, [replace(samples[0], label=label)], {})
    with pytest.raises(ValueError, match="a change may not be called 'unchanged'"):
        accuracy_under(model, samples, {"unchanged": lambda sample: sample})
    blind = build_model("crate_micro_patch6_72.creatures", num_classes=0, dim=16, depth=1, heads=2)
    with pytest.raises(ValueError, match="has no classifier"):
        accuracy_under(blind, samples, {})


def test_accuracy_is_that_of_the_models_own_logits():
    model = load_model("crate-creatures")
    samples = list(load_dataset("creatures", "val", 72, limit=12))
    dark = {"dark": lambda sample: replace(sample, image=torch.zeros_like(sample.image))}
    frame = accuracy_under(model, samples, dark, Reading(batch_size=5))
    assert frame.columns.tolist() == ["model", "change", "image", "label", "predicted", "hit"]
    with torch.no_grad():
        logits = model(model.normalize(torch.stack([sample.image for sample in samples])))
    here = frame[frame.change == "unchanged"]
    assert here["image"].tolist() == list(range(12))
    assert here.predicted.tolist() == logits.argmax(1).tolist()
    assert here.hit.mean() > 0.8
    assert frame[frame.change == "dark"].predicted.nunique() == 1
    edited = accuracy_under(
        model, samples, {}, edits=[ablate_head(n, h) for n in (4, 5) for h in range(4)]
    )
    assert edited.predicted.tolist() != here.predicted.tolist()


def test_raw_pixels_are_means_of_cells():
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    images[0, 0, :2, :2] = torch.tensor([[0, 255], [255, 0]])
    [features] = pixel_features(images, 2)
    assert features.tolist() == [0.0, *[-0.5] * 11]


def test_a_mirrored_sample_is_mirrored_in_all_its_planes():
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    left = torch.tensor([[True, False], [True, False]])
    sample = Sample(image, None, left[None], ("half",), "x", void=~left, crowds=left[None])
    turned = mirror(sample)
    assert turned.image[0].tolist() == [[1, 0], [3, 2]]
    assert torch.equal(turned.masks[0], ~left) and torch.equal(turned.void, left)
    assert torch.equal(turned.crowds[0], ~left) and turned.mask_names == ("half",)
