"""Subspaces in known position to each other, and matrices with known singular values."""

import math

import pytest
import torch

from crate_analysis import build_model
from crate_analysis.measures import (
    effective_dimension,
    orthogonality_gap,
    principal_cosines,
    subspace_coherence,
    subspace_frame,
    subspace_overlap,
    token_dimension,
)

MIX = torch.tensor([[2.0, 1.0], [0.0, -3.0]])
"""Another basis of the same plane, neither orthogonal nor of one length."""


def planes(*columns):
    """Bases from pairs of vectors, each mixed so that only the span is what it was."""
    return torch.stack([torch.tensor(pair).T @ MIX for pair in columns])


E1, E2, E3, E4 = torch.eye(4).tolist()


def test_orthogonal_planes_have_nothing_in_common():
    bases = planes([E1, E2], [E3, E4])
    torch.testing.assert_close(subspace_coherence(bases), torch.eye(2))
    torch.testing.assert_close(subspace_overlap(bases), torch.eye(2))


def test_equal_planes_in_other_bases_are_the_same():
    bases = torch.stack([torch.tensor([E1, E2]).T, torch.tensor([E2, E1]).T @ MIX])
    torch.testing.assert_close(subspace_coherence(bases), torch.ones(2, 2))
    torch.testing.assert_close(subspace_overlap(bases), torch.ones(2, 2))


def test_planes_at_a_known_angle():
    # e1 against cos 60 e1 + sin 60 e3 is one angle of 60 degrees, e2 against e4 one of 90
    turned = [0.5, 0.0, math.sqrt(0.75), 0.0]
    bases = planes([E1, E2], [turned, E4])
    torch.testing.assert_close(principal_cosines(bases)[0, 1], torch.tensor([0.5, 0.0]))
    assert subspace_coherence(bases)[0, 1].item() == pytest.approx(0.5)
    assert subspace_overlap(bases)[1, 0].item() == pytest.approx(0.125)  # (1/4 + 0) / 2


def test_a_shared_line_makes_two_planes_coherent():
    bases = planes([E1, E2], [E1, E3])
    assert subspace_coherence(bases)[0, 1].item() == pytest.approx(1)
    assert subspace_overlap(bases)[0, 1].item() == pytest.approx(0.5)


def test_random_subspaces_overlap_by_their_share_of_the_dimensions():
    bases = torch.randn(40, 30, 6, generator=torch.Generator().manual_seed(0))
    overlap = subspace_overlap(bases)[~torch.eye(40, dtype=torch.bool)]
    assert overlap.mean().item() == pytest.approx(6 / 30, rel=0.01)


def test_a_direction_that_a_basis_lacks_is_in_no_other_span():
    line = torch.tensor([E1, [-2 * entry for entry in E1]]).T
    bases = torch.stack([torch.tensor([E1, E2]).T, line, torch.zeros(4, 2)])
    expected = torch.tensor([[1, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]])
    torch.testing.assert_close(subspace_overlap(bases), expected)


def test_effective_dimension_of_known_singular_values():
    # squares 4, 1, 1: (4 + 1 + 1)^2 / (16 + 1 + 1) = 2
    z = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    assert effective_dimension(z).item() == pytest.approx(2)
    line = torch.tensor([[1.0], [2.0]]) @ torch.tensor([[3.0, 4.0, 5.0]])
    assert effective_dimension(line).item() == pytest.approx(1)
    columns = torch.linalg.qr(torch.randn(2, 9, 5)).Q
    torch.testing.assert_close(effective_dimension(7 * columns), torch.tensor([5.0, 5.0]))


def test_effective_dimension_of_gaussian_entries():
    z = torch.randn(50, 128, 32, generator=torch.Generator().manual_seed(0))
    assert effective_dimension(z).mean().item() == pytest.approx(32 / (1 + 32 / 128), rel=0.01)


def test_token_dimension_does_not_see_what_all_tokens_share():
    # a square: equal spread along two of three axes, wherever it lies
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    projections = torch.stack([square, 5 * square + 100]).reshape(2, 1, 4, 3)
    torch.testing.assert_close(token_dimension(projections), torch.full((2, 1), 2.0))


def test_equal_tokens_have_no_dimension():
    with pytest.raises(ValueError, match="a matrix of zeros has no directions"):
        token_dimension(torch.ones(1, 2, 5, 3))


def test_gap_of_known_columns():
    # M^T M = diag(4, 1, 1), best s = 2: ||(2, -1, -1)|| / ||(4, 1, 1)|| = (6 / 18)^(1/2)
    matrix = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    gap = orthogonality_gap(matrix)
    assert gap.item() == pytest.approx(math.sqrt(1 / 3))
    assert gap.item() == pytest.approx(math.sqrt(1 - effective_dimension(matrix).item() / 3))


def test_orthonormal_columns_have_no_gap_at_any_length():
    columns = 0.3 * torch.linalg.qr(torch.randn(9, 5)).Q
    assert orthogonality_gap(columns).item() == pytest.approx(0, abs=1e-6)


def test_columns_on_one_line_have_the_largest_gap():
    assert orthogonality_gap(torch.ones(6, 4)).item() == pytest.approx(math.sqrt(3 / 4))


@pytest.mark.parametrize("measure", [effective_dimension, orthogonality_gap])
def test_a_matrix_without_numbers_is_refused(measure):
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="matrix of zeros"):
        measure(torch.stack([torch.eye(2), torch.zeros(2, 2)]))


def test_a_frame_of_all_pairs_agrees_with_the_pair():
    model = build_model("crate_micro_patch6_72.creatures", dim=12, heads=3, depth=2)
    frame = subspace_frame(model).set_index(["layer", "head", "other"])
    bases = model.layers[1].subspaces()
    expected = subspace_overlap(bases)[0, 2].item()
    assert frame.overlap[1, 0, 2] == pytest.approx(expected)
    assert frame.overlap[1, 2, 2] != frame.overlap[1, 2, 2] and len(frame) == 2 * 9
    assert frame.dimension[1, 2, 0] == pytest.approx(effective_dimension(bases)[2].item())
