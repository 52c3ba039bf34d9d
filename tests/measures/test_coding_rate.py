"""Cases worked out by hand, then the public reference numbers."""

import math

import pytest
import torch
from safetensors import safe_open

from crate_analysis.measures import coding_rate, rate_reduction, total_coding_rate

EPS2 = 0.01


def literal_rate(z, eps2=EPS2):
    """The t x t formula as it is written (Yu et al. 2023, Eq. 7), tokens of unit length."""
    z = z / z.norm(dim=-1, keepdim=True)
    tokens, dim = z.shape[-2:]
    identity = torch.eye(tokens, dtype=z.dtype)
    return torch.logdet(identity + dim / (tokens * eps2) * z @ z.mT).sum(-1) / 2


def test_orthonormal_tokens_have_the_rate_of_independent_directions():
    # 5 orthonormal tokens in 8 dimensions: Z Z^T = I, so 5/2 log(1 + 8 / (5 eps2))
    z = torch.eye(8)[:5].expand(2, 1, 5, 8)
    expected = 5 / 2 * math.log(1 + 8 / (5 * EPS2))
    assert coding_rate(z).tolist() == pytest.approx([expected] * 2, rel=1e-6)


def test_equal_tokens_have_the_rate_of_one_direction():
    # 6 copies of one unit token: one eigenvalue, 6, so 1/2 log(1 + p / (6 eps2) 6)
    z = torch.tensor([0.6, 0.8, 0.0]).expand(1, 1, 6, 3)
    assert coding_rate(z).item() == pytest.approx(0.5 * math.log(1 + 3 / EPS2), rel=1e-6)


def test_heads_add_up_and_images_do_not_mix():
    z = torch.randn(3, 4, 10, 6)
    by_head = sum(coding_rate(z[:, h : h + 1]) for h in range(4))
    torch.testing.assert_close(coding_rate(z), by_head)
    torch.testing.assert_close(coding_rate(z)[1:2], coding_rate(z[1:2]))


def test_total_rate_is_that_of_one_subspace():
    z = torch.randn(2, 9, 7)
    torch.testing.assert_close(total_coding_rate(z), literal_rate(z.unsqueeze(1)))


@pytest.mark.parametrize("shape", [(2, 3, 40, 8), (2, 3, 8, 40), (1, 1, 12, 12)])
def test_both_sides_of_the_gram_matrix_give_the_literal_rate(shape):
    z = torch.randn(shape)
    torch.testing.assert_close(coding_rate(z), literal_rate(z), rtol=1e-5, atol=0)


def test_order_and_length_of_tokens_do_not_matter():
    z = torch.randn(2, 3, 20, 5)
    shuffled = z[:, :, torch.randperm(20)] * torch.rand(2, 3, 20, 1).add(0.1)
    torch.testing.assert_close(coding_rate(shuffled), coding_rate(z), rtol=1e-5, atol=0)


def test_without_normalisation_longer_tokens_cost_more():
    z = torch.eye(4).expand(1, 1, 4, 4)
    # 4 orthogonal tokens of length 3: eigenvalues 9
    expected = 2 * math.log(1 + 9 / EPS2)
    assert coding_rate(3 * z, normalize=False).item() == pytest.approx(expected, rel=1e-6)


def test_a_finer_precision_costs_more():
    z = torch.randn(1, 2, 10, 5)
    assert coding_rate(z, eps2=0.001) > coding_rate(z, eps2=0.1)


def test_half_precision_is_measured_in_float32():
    z = torch.randn(2, 3, 30, 8).bfloat16()
    assert coding_rate(z).dtype == torch.float32
    torch.testing.assert_close(coding_rate(z), coding_rate(z.float()))


@pytest.mark.parametrize("eps2", [0.0, -0.01, float("nan")])
def test_a_precision_that_is_not_positive_is_refused(eps2):
    with pytest.raises(ValueError, match=r"eps2=.* must be more than 0"):
        coding_rate(torch.randn(1, 1, 3, 3), eps2=eps2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_entries_that_are_no_numbers_are_refused(value):
    z = torch.randn(1, 2, 5, 3)
    z[0, 1, 2, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        coding_rate(z)


def test_a_zero_token_is_refused_only_where_it_must_be_scaled():
    z = torch.randn(1, 1, 5, 3)
    z[0, 0, 2] = 0
    with pytest.raises(ValueError, match="token of length zero"):
        coding_rate(z)
    assert coding_rate(z, normalize=False).isfinite().all()


@pytest.mark.parametrize("name", ["crate_tiny", "crate_one_head"])
def test_the_public_numbers(parity, name):
    with safe_open(parity / f"{name}.safetensors", "pt") as file:
        reference = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    layers = [key.split(".")[0] for key in reference if key.endswith("coding_rate")]
    assert layers
    for layer in layers:
        heads = reference[f"{layer}.attention"].shape[1]
        z = reference[f"{layer}.projections"].unflatten(-1, (heads, -1)).transpose(1, 2)
        rates = coding_rate(z).double()
        torch.testing.assert_close(rates, reference[f"{layer}.coding_rate"], rtol=1e-4, atol=0)


def test_rate_reduction_of_tokens_that_lie_in_orthogonal_subspaces():
    # two tokens, one in each of two lines: R = 2 x 1/2 log(1 + 2 / (2 eps2)), and in each line one
    # token of length 1 and one of length 0, R^c = 2 x 1/2 log(1 + 1 / (2 eps2))
    z = torch.tensor([[[3.0, 0.0], [0.0, 0.5]]])
    expected = math.log(1 + 1 / EPS2) - math.log(1 + 1 / (2 * EPS2))
    subspaces = torch.eye(2).unsqueeze(-1)
    assert rate_reduction(z, subspaces).item() == pytest.approx(expected, rel=1e-5)


def test_rate_reduction_of_collapsed_tokens_is_lower():
    subspaces = torch.eye(2).unsqueeze(-1)
    spread, collapsed = torch.eye(2)[None], torch.eye(2)[:1].expand(1, 2, 2)
    assert rate_reduction(spread, subspaces) > rate_reduction(collapsed, subspaces)
