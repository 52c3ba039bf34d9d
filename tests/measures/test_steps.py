"""Steps with known gradients; closed forms against automatic differentiation."""

import math

import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.measures import (
    coding_rate,
    common_share,
    cosine,
    derived_gradient,
    lift,
    measure_layers,
    measured_gradient,
    random_step,
    rate_change,
    turned,
    turned_cosine,
    with_length_of,
)
from crate_analysis.models import LayerState
from crate_analysis.walk import Reading

EPS2 = 0.01


def small_crate(**overrides):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "dim": 12, "depth": 2, "heads": 3}
    return build_model("crate_micro_patch6_72.creatures", **sizes | overrides).eval()


def first_state(model, images=2):
    pictures = torch.randn(images, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return next(model.unroll(pictures))


# --- angles -----------------------------------------------------------------------------------


def test_cosines_of_known_steps():
    a = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    b = torch.tensor([[[1.0, 0.0], [0.0, math.sqrt(3)]]])  # 60 degrees from a, in another token
    assert cosine(a, b).item() == pytest.approx(0.5)
    assert cosine(a, -7 * a).item() == pytest.approx(-1)
    assert cosine(a, a.flip(1)).item() == pytest.approx(0)
    torch.testing.assert_close(cosine(torch.cat([a, b]), torch.cat([b, b])), torch.tensor([0.5, 1]))


def test_a_step_without_direction_is_refused():
    step = torch.ones(2, 3, 4)
    still = torch.stack([torch.ones(3, 4), torch.zeros(3, 4)])
    for call in (cosine, turned_cosine, with_length_of, lambda a, _: common_share(a)):
        with pytest.raises(ValueError, match="zero, NaN or infinite, and has no direction"):
            call(still, step)


def test_turned_cosine_of_one_token_is_that_of_a_random_direction():
    level = turned_cosine(torch.randn(5, 1, 9), torch.randn(5, 1, 9))
    torch.testing.assert_close(level, torch.full((5,), 1 / 3))


def test_turned_cosine_of_two_tokens_in_the_plane():
    # S = G = I: the cosine is tr(Q)/2, cos a for rotations and 0 for reflections: rms 1/2
    assert turned_cosine(torch.eye(2)[None], torch.eye(2)[None]).item() == pytest.approx(0.5)


def test_turned_cosine_is_what_random_turns_give():
    generator = torch.Generator().manual_seed(0)
    step, direction = torch.randn(2, 1, 30, 4, generator=generator).cumsum(2)
    turns = torch.linalg.qr(torch.randn(4000, 4, 4, generator=generator))
    # the sign convention that makes the turns of a QR factorisation uniform
    turns = turns.Q * turns.R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(1)
    cosines = cosine(step @ turns, direction.expand(4000, -1, -1))
    expected = turned_cosine(step, direction).item()
    assert cosines.square().mean().sqrt().item() == pytest.approx(expected, rel=0.05)


def test_common_share_of_known_steps():
    alike = torch.tensor([[1.0, 2], [1, 2]])
    apart = torch.tensor([[1.0, 2], [-1, -2]])
    # (1, 0) and (0, 1): the mean (1/2, 1/2) has a squared length of 1/2, so 2 (1/2) / 2
    share = common_share(torch.stack([alike, apart, torch.eye(2)]))
    torch.testing.assert_close(share, torch.tensor([1, 0, 0.5]))


def test_length_is_taken_over_and_direction_kept():
    step, other = torch.randn(2, 3, 5, 4)
    scaled = with_length_of(step, other)
    torch.testing.assert_close(scaled.norm(dim=(1, 2)), other.norm(dim=(1, 2)))
    torch.testing.assert_close(cosine(scaled, step), torch.ones(3))


# --- the gradient of the derivation -----------------------------------------------------------


def test_gradient_of_one_token_in_one_line():
    # U = e1, z = (3, 5): V = 3, c = 1 / eps2 = 100, so c V / (1 + c V^2) = 300 / 901 along e1
    subspaces = torch.tensor([[[1.0], [0.0]]])
    gradient = derived_gradient(subspaces, torch.full((1, 1, 1, 1), 3.0), EPS2)
    torch.testing.assert_close(gradient, torch.tensor([[[300 / 901, 0.0]]]))


def test_gradient_of_orthonormal_tokens_shrinks_all_of_them_alike():
    # V V^T = I of 4 tokens in 4 dimensions: c / (1 + c) V with c = 4 / (4 eps2)
    tokens = torch.eye(4)[None, None]
    gradient = derived_gradient(torch.eye(4)[None], tokens, EPS2)
    torch.testing.assert_close(gradient, 100 / 101 * tokens[0])


@pytest.mark.parametrize("tokens", [3, 20])
def test_closed_form_is_the_derivative_of_the_rate(tokens):
    torch.manual_seed(0)
    subspaces = torch.randn(3, 9, 5, dtype=torch.float64)
    z = torch.randn(2, tokens, 9, dtype=torch.float64, requires_grad=True)
    projections = torch.einsum("hdp,btd->bhtp", subspaces, z)
    rate = coding_rate(projections, EPS2, normalize=False)
    (expected,) = torch.autograd.grad(rate.sum(), z)
    torch.testing.assert_close(derived_gradient(subspaces, projections, EPS2), expected)


def test_a_precision_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"eps2=0\.0 must be more than 0"):
        derived_gradient(torch.ones(1, 2, 1), torch.ones(1, 1, 3, 1), 0.0)


@torch.no_grad()
def test_with_the_bases_as_output_map_the_layer_takes_the_derivations_step():
    model = small_crate()
    attention = model.layers[0].attention.fn
    attention.to_out[0].weight.copy_(attention.qkv.weight.T)  # W = [U_1 ... U_K]
    attention.to_out[0].bias.zero_()
    state = first_state(model)
    step = lift(state.subspaces, state.attention(slice(None)) @ state.projections)
    torch.testing.assert_close(state.half - state.tokens, step)


@torch.no_grad()
def test_where_all_tokens_are_equal_attention_steps_straight_up_the_derived_rate():
    # attention gives each token back, W = U = I gives step = LN(z), and the gradient shrinks LN(z)
    layer = small_crate(heads=1).layers[0]
    layer.attention.fn.qkv.weight.copy_(torch.eye(12))
    state = LayerState(0, torch.randn(12).expand(2, 17, 12), layer)
    gradient = derived_gradient(state.subspaces, state.projections)
    torch.testing.assert_close(cosine(state.half - state.tokens, -gradient), -torch.ones(2))


# --- the gradient of what is measured ---------------------------------------------------------


def test_measured_gradient_is_the_slope_of_the_measured_rate():
    state = first_state(small_crate())
    gradient = measured_gradient(state)
    direction = torch.randn_like(gradient)
    ahead, behind = (rate_change(state, reach * direction) for reach in (1e-3, -1e-3))
    slope = (ahead - behind) / 2e-3
    torch.testing.assert_close(slope, (gradient * direction).sum((1, 2)), rtol=1e-2, atol=0.1)


def test_measured_gradient_is_blind_to_the_length_of_a_token():
    state = first_state(small_crate())
    gradient = measured_gradient(state)
    along = (gradient * state.tokens).sum(-1) / (gradient.norm(dim=-1) * state.tokens.norm(dim=-1))
    assert along.abs().max() < 1e-3


def test_measured_gradient_leaves_no_trace_and_works_in_a_pass_over_pictures():
    model = small_crate()
    pictures = load_dataset("creatures", "val", 16, limit=3)
    agreement = {
        "cosine": lambda state: cosine(state.half - state.tokens, -measured_gradient(state))
    }
    frame = measure_layers(model, pictures, agreement, reading=Reading(batch_size=2))
    assert frame.value.between(-1, 1).all() and (frame.value != 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_rate_change_is_the_difference_of_the_rates():
    with torch.no_grad():
        state = first_state(small_crate())
        step = state.half - state.tokens
        expected = coding_rate(state.project(state.half)) - coding_rate(state.projections)
        torch.testing.assert_close(rate_change(state, step), expected)
        torch.testing.assert_close(rate_change(state, 0 * step), torch.zeros(2))
        short = with_length_of(-measured_gradient(state), 1e-3 * step)
        assert (rate_change(state, short) < 0).all()


def test_a_random_step_is_as_long_and_points_nowhere():
    step = torch.randn(3, 20, 16, generator=torch.Generator().manual_seed(12345)) * torch.tensor(
        [1.0, 5.0, 100.0]
    ).view(3, 1, 1)
    drawn = random_step(step)
    torch.testing.assert_close(drawn.norm(dim=(1, 2)), step.norm(dim=(1, 2)))
    assert torch.equal(drawn, random_step(step)) and not torch.equal(drawn, random_step(step, 1))
    values = torch.stack([cosine(random_step(step, seed), step) for seed in range(200)])
    assert abs(values.mean()) < 0.01 and values.std() == pytest.approx(320**-0.5, rel=0.1)


def test_a_turned_step_keeps_lengths_and_angles_and_loses_its_direction():
    step = torch.randn(1, 6, 64)
    other = turned(step, seed=3)
    torch.testing.assert_close(other @ other.mT, step @ step.mT, rtol=1e-4, atol=1e-4)
    assert cosine(step, other).abs().item() < 0.3
    torch.testing.assert_close(other, turned(step, seed=3))
    assert not torch.allclose(other, turned(step, seed=4))
