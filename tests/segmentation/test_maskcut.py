"""Cuts whose answer is known by hand, the public outputs, and what there is nothing to cut in."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from safetensors import safe_open

from crate_analysis.segmentation import maskcut

GRID = (12, 12)
MODULE = import_module("crate_analysis.segmentation.maskcut")  # the function has its name


def planted(*boxes, grid=GRID, noise=0.0, seed=0):
    """Features of an image whose boxes (top, bottom, left, right) each point their own way."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(grid, dtype=torch.long)
    for number, (top, bottom, left, right) in enumerate(boxes, 1):
        labels[top:bottom, left:right] = number
    features = torch.eye(len(boxes) + 1, 8)[labels.flatten()]
    return features + noise * torch.randn(features.shape, generator=generator), labels


def test_one_object_is_the_first_mask():
    features, labels = planted((3, 8, 4, 9))
    assert torch.equal(maskcut(features, GRID, n_masks=1), (labels == 1)[None])


@pytest.mark.parametrize("grid", [(8, 8), (12, 16)])  # by the dense solver, by Lanczos
def test_the_side_in_three_corners_is_background_though_it_is_smaller(grid):
    labels = torch.zeros(grid, dtype=torch.long)
    labels[1:-1, 1:-1] = 1
    labels[-1, -1] = 1  # the border is left with three corners, and with fewer patches
    features = torch.eye(2, 4)[labels.flatten()]
    labels[-1, -1] = 0  # not connected to the rest of its side
    assert torch.equal(maskcut(features, grid, n_masks=1), (labels == 1)[None])


def test_objects_come_one_after_the_other_without_a_common_patch():
    features, labels = planted((1, 5, 2, 6), (7, 11, 5, 11), noise=0.05)
    masks = maskcut(features, GRID, n_masks=3)
    assert len(masks) >= 2
    assert masks.sum(0).max() == 1
    found = {int(labels[mask].unique()) for mask in masks[:2]}
    assert found == {1, 2}
    for mask in masks[:2]:
        assert torch.equal(mask, labels == labels[mask][0])


def test_of_two_like_pieces_only_the_seeds_is_kept():
    features, labels = planted((2, 5, 2, 5), (7, 11, 7, 11))
    features[labels.flatten() == 2] = features[labels.flatten() == 1][0]
    [mask] = maskcut(features, GRID, n_masks=1)
    assert mask.any() and len(labels[mask].unique()) == 1


def test_the_second_mask_is_dropped_when_it_is_small():
    features, labels = planted((2, 9, 2, 9), (10, 11, 10, 11))  # one patch of 144
    masks = maskcut(features, GRID, n_masks=2)
    assert torch.equal(masks, (labels == 1)[None])


@pytest.mark.parametrize("grid", [(5, 5), (16, 16)])
def test_nothing_to_cut(grid):
    n = grid[0] * grid[1]
    for features in (torch.ones(n, 4), torch.zeros(n, 4)):
        assert maskcut(features, grid).shape == (0, *grid)
    assert maskcut(torch.ones(1, 4), (1, 1)).shape == (0, 1, 1)


def test_wrong_requests():
    features = torch.randn(144, 8)
    with pytest.raises(ValueError, match="144 features do not fill a grid of 12 x 11"):
        maskcut(features, (12, 11))
    with pytest.raises(ValueError, match="n_masks=0 must be at least 1"):
        maskcut(features, GRID, n_masks=0)
    with pytest.raises(ValueError, match=r"tau=-0.1 must be a cosine in \[0, 1\)"):
        maskcut(features, GRID, tau=-0.1)
    features[3, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        maskcut(features, GRID)


def random_field(seed, grid, channels=16):
    """Features that vary smoothly over the image, as a network's do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, 5, 5, generator=generator)
    field = torch.nn.functional.interpolate(coarse, grid, mode="bicubic")[0].flatten(1).T
    return field + 0.3 * torch.randn(field.shape, generator=generator)


@pytest.mark.parametrize("seed", range(8))
def test_both_solvers_cut_alike(seed, monkeypatch):
    features = random_field(seed, (20, 24))
    quick = maskcut(features, (20, 24))
    monkeypatch.setattr(MODULE, "FEW", 10_000)
    assert torch.equal(maskcut(features, (20, 24)), quick)


def test_the_dense_solver_steps_in(monkeypatch):
    from scipy.sparse.linalg import ArpackNoConvergence

    def fail(*_, **__):
        raise ArpackNoConvergence("no", np.array([]), np.array([]))

    features = random_field(0, (20, 24))
    quick = maskcut(features, (20, 24))
    monkeypatch.setattr("scipy.sparse.linalg.eigsh", fail)
    assert torch.equal(maskcut(features, (20, 24)), quick)


@pytest.mark.parametrize("number", range(3))
def test_public_outputs(parity, number):
    with safe_open(parity / f"maskcut_{number}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        features, expected = file.get_tensor("features"), file.get_tensor("masks")
    found = maskcut(features, tuple(config["grid"]), config["n_masks"], config["tau"])
    assert torch.equal(found, expected[expected.flatten(1).any(1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30, 1e37])
def test_the_scale_of_features_does_not_matter(scale, dtype):
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    features[25:60] += 3
    expected = maskcut(features, (10, 10))
    assert len(expected) and torch.equal(maskcut(features * scale, (10, 10)), expected)
    own = torch.rand(100, 1, generator=torch.Generator().manual_seed(1)).to(dtype) + 0.5
    assert torch.equal(maskcut(features * own * scale, (10, 10)), expected)


def test_a_patch_of_zeros_is_like_no_other():
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    features[7] = 0
    for scale in (1.0, 1e30):
        assert torch.equal(maskcut(features * scale, (10, 10)), maskcut(features, (10, 10)))
