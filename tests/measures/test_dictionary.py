"""Dictionaries of a few atoms, worked out by hand, then ISTA's own step."""

import copy
import math

import pytest
import torch

from crate_analysis import build_model
from crate_analysis.measures import (
    atom_cosines,
    coding_objective,
    dictionary_change,
    dictionary_frame,
    lasso_objective,
    step_strength,
)
from crate_analysis.models.crate import ISTA, SoftISTA


def test_orthogonal_atoms_of_any_length_are_incoherent():
    dictionary = torch.linalg.qr(torch.randn(6, 6)).Q * torch.tensor([1.0, 2, 3, 4, 5, 6])
    torch.testing.assert_close(atom_cosines(dictionary), torch.zeros(15), atol=1e-6, rtol=0)


def test_atoms_are_columns():
    # (1, 0) and (1, 2) have cosine 1/sqrt 5; the rows (1, 1) and (0, 2) would have 1/sqrt 2
    dictionary = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    assert atom_cosines(dictionary).tolist() == pytest.approx([1 / math.sqrt(5)])


def test_opposite_atoms_lie_on_one_line():
    assert atom_cosines(torch.tensor([[1.0, -2.0], [1.0, -2.0]])).tolist() == pytest.approx([1])


def test_three_even_atoms_of_the_plane_reach_welchs_bound():
    angles = torch.tensor([0.0, 2, 4]) * math.pi / 3
    dictionary = torch.stack([angles.cos(), angles.sin()])
    bound = math.sqrt((3 - 2) / (2 * (3 - 1)))
    assert atom_cosines(dictionary).tolist() == pytest.approx([bound] * 3)


def test_gaussian_atoms():
    dictionary = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    expected = math.sqrt(2 / (math.pi * 128))
    assert atom_cosines(dictionary).mean().item() == pytest.approx(expected, rel=0.02)


def test_an_atom_of_zeros_is_named_and_one_atom_refused():
    with pytest.raises(ValueError, match="atom 1 of the dictionary is zero"):
        atom_cosines(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="has 1 atom"):
        atom_cosines(torch.ones(3, 1))


def test_step_strength_is_the_step_times_the_largest_curvature():
    dictionary = torch.diag(torch.tensor([3.0, 1.0]))
    assert step_strength(dictionary, 0.1).item() == pytest.approx(0.9)


def test_objective_of_a_known_code():
    # D (1, 0) = (1, 0), so the misfit with (1, 2) is 4/2, and ||a||_1 = 1; the second token is
    # coded as nothing: (9 + 0)/2. D^T in place of D would give a misfit of 1/2 for the first.
    dictionary = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    codes = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    objective = lasso_objective(codes, tokens, dictionary, sparsity=0.5)
    assert objective.tolist() == pytest.approx([(2 + 0.5 + 4.5) / 2])
    fit = lasso_objective(codes, tokens, dictionary, sparsity=0.0)
    assert fit.tolist() == pytest.approx([(2 + 4.5) / 2])


def test_images_do_not_mix():
    tokens, codes, dictionary = torch.randn(3, 4, 5), torch.randn(3, 4, 7), torch.randn(5, 7)
    whole = lasso_objective(codes, tokens, dictionary, 0.1)
    torch.testing.assert_close(
        whole[1:2], lasso_objective(codes[1:2], tokens[1:2], dictionary, 0.1)
    )


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"sparsity=-0\.1 must be 0 or more"):
        lasso_objective(torch.ones(1, 1, 2), torch.ones(1, 1, 2), torch.eye(2), -0.1)


@torch.no_grad()
def test_objective_of_a_layer_is_that_of_the_tokens_its_ista_sees():
    model = build_model("crate_micro_patch6_72.creatures", image_size=12, dim=8, depth=1, heads=2)
    ista = model.layers[0].nonlinearity
    ista.norm.bias.normal_()
    ista.norm.weight.normal_()
    state = next(model.unroll(torch.randn(2, 3, 12, 12)))
    expected = lasso_objective(state.output, ista.norm(state.half), ista.fn.weight, 0.1)
    torch.testing.assert_close(coding_objective(state, state.output), expected)


def test_a_layer_without_a_dictionary_is_refused():
    model = build_model("vit_micro_patch6_72.creatures", image_size=12, dim=8, depth=1, heads=2)
    state = next(model.unroll(torch.randn(2, 3, 12, 12)))
    with pytest.raises(ValueError, match="no dictionary"):
        coding_objective(state, state.output)


@torch.no_grad()
def test_a_short_enough_step_of_soft_ista_lowers_the_objective():
    torch.manual_seed(0)
    ista, tokens = SoftISTA(8, 0.1, 0.1), torch.randn(50, 3, 8)
    ista.weight.mul_((1.9 / step_strength(ista.weight, 0.1)).sqrt())
    before = lasso_objective(tokens, tokens, ista.weight, 0.1)
    assert (lasso_objective(ista(tokens), tokens, ista.weight, 0.1) < before).all()
    ista.weight.mul_(2)  # four times the strength: it overshoots
    before = lasso_objective(tokens, tokens, ista.weight, 0.1)
    assert (lasso_objective(ista(tokens), tokens, ista.weight, 0.1) > before).any()


@torch.no_grad()
def test_istas_relu_can_raise_it():
    # D = 1 codes -2 as itself at a cost of 0.1 * 2; the ReLU allows only 0, at a cost of 4/2
    ista, token = ISTA(1, 0.1, 0.1), torch.tensor([[[-2.0]]])
    ista.weight.fill_(1)
    before = lasso_objective(token, token, ista.weight, 0.1)
    after = lasso_objective(ista(token), token, ista.weight, 0.1)
    assert (before.item(), after.item()) == pytest.approx((0.2, 2))


def test_how_far_a_dictionary_has_moved(unchecked):
    first = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert dictionary_change(first, first) == (0.0, 1.0)
    assert dictionary_change(-2 * first, first) == (3.0, -1.0)
    turned = first.flip(0)  # orthogonal as a vector: ||a - b||^2 = 25 + 25
    assert dictionary_change(turned, first) == pytest.approx((2**0.5, 0.0))
    with pytest.raises(ValueError, match=r"are \(2, 2\) and \(3, 2\): take both from one"):
        dictionary_change(first, torch.ones(3, 2))
    with pytest.raises(ValueError, match="a dictionary of zeros has no direction"):
        dictionary_change(first, torch.zeros(2, 2))


def test_a_frame_of_all_layers_beside_the_first_values():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "dim": 12, "depth": 2, "heads": 3}
    first = build_model("crate_micro_patch6_72.creatures", **sizes)
    model = copy.deepcopy(first)
    with torch.no_grad():
        model.layers[1].nonlinearity.fn.weight.mul_(3)
    frame = dictionary_frame(model, first).groupby("layer").first()
    assert frame.change.tolist() == pytest.approx([0, 2])
    assert frame.cosine.tolist() == pytest.approx([1, 1])
    assert frame.gap[0] == pytest.approx(dictionary_frame(first).gap.iloc[0])
    assert dictionary_frame(first).change.isna().all()
