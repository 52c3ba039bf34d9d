"""CRATE-alpha has what the family has: the measures of its code and dictionary, and training."""

from __future__ import annotations

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.measures import (
    atom_cosines,
    coding_objective,
    measure_layers,
    nonzero_fraction,
    step_strength,
)

MICRO = "crate_micro_patch6_72.creatures"


@pytest.fixture
def cell():
    """A cell of the ablation: our CRATE in all but its sparse step."""
    torch.manual_seed(0)
    changes = {"nonlinearity": "ista_overcomplete", "depth": 2, "dim": 32}
    return build_model(MICRO, **changes).eval()


@torch.no_grad()
def test_the_non_zero_share_is_that_of_the_code(cell):
    images = load_dataset("creatures", "val", 72, 2, 0)
    frame = measure_layers(cell, images).set_index(["measure", "layer", "image"]).value
    pixels = torch.stack([images[index].image for index in range(2)])
    for state in cell.unroll(cell.normalize(pixels)):
        assert state.codes.shape[-1] == 128
        share = (state.codes != 0).double().mean((1, 2))
        torch.testing.assert_close(nonzero_fraction(state.sparsified).double(), share)
        found = frame["nonzero_fraction"][state.index]
        assert found.tolist() == pytest.approx(share.tolist())
        assert (state.output != 0).all()  # a residual: the tokens themselves are dense


@torch.no_grad()
def test_two_steps_lower_the_objective(cell):
    state = next(cell.unroll(torch.randn(3, 3, 72, 72)))
    dictionary, step_size, _ = state.sparse_coding
    dictionary.mul_((0.5 / step_strength(dictionary, step_size)).sqrt())
    state = next(cell.unroll(torch.randn(3, 3, 72, 72)))
    before, after = (coding_objective(state, c) for c in (state.initial_codes, state.codes))
    torch.testing.assert_close(before, state.normed_half.square().sum(-1).mean(-1) / 2)
    assert (after < before).all()
    assert atom_cosines(dictionary).shape == (128 * 127 // 2,)


def test_a_cell_differs_from_ours_in_nothing_else(cell):
    other = build_model(MICRO, depth=2, dim=32)
    names = {key for key in cell.state_dict() if ".1.fn." not in key}
    assert names == {key for key in other.state_dict() if ".1.fn." not in key}
    changed = {k for k, v in cell.config.to_dict().items() if other.config.to_dict()[k] != v}
    assert changed == {"nonlinearity"}


def test_it_learns(cell):
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 72, 72), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(cell.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(cell(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
