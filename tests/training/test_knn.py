import math

import pytest
import torch

from crate_analysis.training.knn import knn_accuracy


def test_separable_classes_are_all_named_rightly():
    directions = torch.eye(4).repeat(10, 1) + 0.1 * torch.rand(
        40, 4, generator=torch.manual_seed(0)
    )
    labels = torch.arange(4).repeat(10)
    assert knn_accuracy(directions, labels, 5 * torch.eye(4), torch.arange(4), neighbours=9) == 1.0


def test_near_features_outvote_more_distant_ones():
    """Similarities 1 and twice cos a: the two win where 2 e^(cos a / 0.07) > e^(1 / 0.07)."""
    tie = math.acos(1 - 0.07 * math.log(2))
    labels = torch.tensor([0, 1, 1])
    query, truth = torch.tensor([[3.0, 0.0]]), torch.tensor([1])
    for angle, expected in ((tie - 0.01, 1.0), (tie + 0.01, 0.0)):
        aside = [math.cos(angle), math.sin(angle)]
        features = torch.tensor([[1.0, 0.0], aside, aside])
        assert knn_accuracy(features, labels, query, truth, neighbours=3) == expected


def test_length_does_not_count_and_features_beyond_the_nearest_have_no_vote():
    features = torch.tensor([[1.0, 0.0], [0.0, 9.0], [0.0, 9.0]])
    truth = torch.tensor([0])
    accuracy = knn_accuracy(
        features, torch.tensor([0, 1, 1]), torch.tensor([[2.0, 1.0]]), truth, neighbours=1
    )
    assert accuracy == 1.0


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="3 features have no 20 nearest"):
        knn_accuracy(torch.eye(3), torch.arange(3), torch.eye(3), torch.arange(3))
