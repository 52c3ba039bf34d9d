import pytest
import torch

from crate_analysis.measures import nonzero_fraction


def test_share_of_a_known_matrix():
    z = torch.tensor([[[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [1e-30, 1.0, 0.0]]])
    assert nonzero_fraction(z).tolist() == pytest.approx([2 / 6, 5 / 6])


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        nonzero_fraction(torch.tensor([[[float("nan"), 0.0]]]))
