"""CRATE's pieces on cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from crate_analysis.models.crate import ISTA, Patches, SoftISTA, SubspaceAttention
from crate_analysis.models.unrolled import merge_heads, softmax_rows


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def apply(attention: SubspaceAttention, tokens: list[list[float]]) -> torch.Tensor:
    normed = torch.tensor([tokens])
    projections = attention.project(normed)
    queries = attention.queries(normed, projections)
    mixed = softmax_rows(queries, projections) @ attention.values(normed, projections)
    return attention.to_out(merge_heads(mixed))[0]


@torch.no_grad()
def test_mssa_of_orthonormal_tokens():
    # U = I, one head with p = 4: the Gram matrix is I, the logits are I / sqrt(4), so each token
    # keeps the share sigmoid(1/2) of itself and takes the rest of the other.
    attention = SubspaceAttention(4, 1)
    attention.qkv.weight.copy_(torch.eye(4))
    own = sigmoid(1 / 2)
    expected = torch.tensor([[own, 1 - own, 0, 0], [1 - own, own, 0, 0]])
    torch.testing.assert_close(apply(attention, [[1, 0, 0, 0.0], [0, 1, 0, 0]]), expected)


@torch.no_grad()
def test_mssa_heads_see_their_own_subspace_and_lie_side_by_side():
    # U = I, two heads with p = 2. Token 1 lies in head 1 alone, token 2 in head 2 alone; in the
    # head where a token is zero it attends evenly.
    attention = SubspaceAttention(4, 2)
    attention.qkv.weight.copy_(torch.eye(4))
    attention.to_out[0].weight.copy_(torch.eye(4))
    attention.to_out[0].bias.copy_(torch.tensor([0, 0, 0, 10.0]))
    own = sigmoid(1 / math.sqrt(2))
    expected = torch.tensor([[own, 0, 1 / 2, 10], [1 / 2, 0, own, 10]])
    torch.testing.assert_close(apply(attention, [[1, 0, 0, 0.0], [0, 0, 1, 0]]), expected)


def dictionary(module: type[ISTA], step_size: float = 0.1, sparsity: float = 0.1) -> ISTA:
    ista = module(2, step_size, sparsity)
    ista.weight.data = torch.tensor([[1.0, 1], [0, 1]])
    return ista


@torch.no_grad()
def test_ista_step_by_hand():
    # D z = (3, 2); z - D z = (-2, 0); D^T of it = (-2, -2); z + 0.1 of it = (0.8, 1.8); less 0.01
    z = torch.tensor([[[1.0, 2]]])
    torch.testing.assert_close(dictionary(ISTA)(z), torch.tensor([[[0.79, 1.79]]]))
    # with eta = 0.5 and lambda = 0.2: (1, 2) + 0.5 (-2, -2) - 0.1
    torch.testing.assert_close(dictionary(ISTA, 0.5, 0.2)(z), torch.tensor([[[0.0, 0.9]]]))


@torch.no_grad()
def test_ista_makes_exact_zeros_and_soft_ista_keeps_signs():
    # D z = (-1, 0) = z, so the gradient is zero and the thresholds act alone
    z = torch.tensor([[[-1.0, 0]]])
    assert torch.equal(dictionary(ISTA)(z), torch.zeros(1, 1, 2))
    torch.testing.assert_close(dictionary(SoftISTA)(z), torch.tensor([[[-0.99, 0]]]))
    assert dictionary(SoftISTA)(z)[0, 0, 1] == 0


def test_patches_are_flattened_row_column_channel():
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(6), indexing="ij")
    patches = Patches(2)((100 * c + 10 * y + x).float()[None])
    assert patches.shape == (1, 6, 12)
    first = [0, 100, 200, 1, 101, 201, 10, 110, 210, 11, 111, 211]
    assert patches[0, 0].tolist() == first
    assert patches[0, 1].tolist() == [value + 2 for value in first]  # to the right
    assert patches[0, 3].tolist() == [value + 20 for value in first]  # next row of the grid


@pytest.mark.parametrize("kind", ["crate-demo"], indirect=True)
def test_demo_classifies_through_its_projector(model):
    cls = torch.randn(2, 1, 12)
    normed = model.mlp_head[0](cls[:, 0])
    expected = model.head(normed @ model.mlp_head[1].weight.T + model.mlp_head[1].bias)
    assert expected.shape == (2, 5)
    torch.testing.assert_close(model.classify(cls), expected)
