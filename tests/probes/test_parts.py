"""Planted parts must be found, shuffled ones not, and labels of patches follow their pixels."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from crate_analysis import load_dataset
from crate_analysis.datasets import Sample
from crate_analysis.datasets.creatures import PARTS
from crate_analysis.probes import (
    adjusted_rand,
    balanced_accuracy,
    cluster_patches,
    linear_probe,
    patch_labels,
    separation_auc,
)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def planted(rng):
    """Labels of patches of 12 images; features are one vector a label and a little noise.

    Unlabelled patches hold far-away features that must not matter.
    """
    labels = torch.randint(-1, 4, (12, 30), generator=rng)
    vectors = 5 * torch.randn(5, 8, generator=rng)
    features = vectors[labels] + 0.01 * torch.randn(12, 30, 8, generator=rng)
    features[labels == -1] *= 100
    return features, labels


def sample(masks, names, size=(4, 8)):
    planes = torch.zeros(len(names), *size, dtype=torch.bool)
    for plane, (rows, columns) in zip(planes, masks, strict=True):
        plane[rows, columns] = True
    return Sample(torch.zeros(3, *size, dtype=torch.uint8), None, planes, tuple(names), "some")


def test_a_patch_is_what_covers_most_of_it():
    # patches of 4 x 4 pixels: 6 of head and 2 of tail on the left, 7 of tail on the right
    picture = sample(
        [(slice(0, 2), slice(0, 3)), (3, slice(0, 2)), (slice(0, 1), slice(4, 8))],
        ["head", "tail", "tail"],
    )
    assert patch_labels([picture], (1, 2), ["tail", "head"]).tolist() == [[1, -1]]
    assert patch_labels([picture], (1, 2), ["tail"]).tolist() == [[-1, -1]]  # 2 and 4 of 16
    assert patch_labels([picture], (2, 4), ["tail", "head"]).tolist() == [
        [1, 1, 0, 0, 0, -1, -1, -1]
    ]  # of 2 x 2 pixels: 4, then 2 of head; 2, 2 of tail on top; below 2 of tail


def test_parts_and_objects_of_one_name_are_told_apart():
    both = sample([(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8))], ["head", "head"])
    both = replace(both, part_of=(None, 0))
    for of, expected in (("masks", [[0, 0]]), ("objects", [[0, -1]]), ("parts", [[-1, 0]])):
        assert patch_labels([both], (1, 2), ["head"], of).tolist() == expected


def test_of_equals_the_first_named_counts_and_planes_of_one_name_are_one():
    picture = sample([(slice(0, 4), slice(0, 2)), (slice(0, 4), slice(2, 4))], ["a", "b"])
    assert patch_labels([picture], (1, 2), ["a", "b"])[0, 0] == 0
    assert patch_labels([picture], (1, 2), ["b", "a"])[0, 0] == 0
    quarters = sample(
        [(slice(0, 2), slice(0, 2)), (slice(2, 4), slice(0, 2)), (slice(0, 4), slice(2, 4))],
        ["a", "a", "b"],
    )
    assert patch_labels([quarters], (1, 2), ["b", "a"])[0, 0] == 0  # 8 of 16 each
    overlapping = sample([(slice(0, 4), slice(0, 1))] * 3, ["a"] * 3)
    assert patch_labels([overlapping], (1, 2), ["a"])[0, 0] == -1  # 4 pixels, not 12
    twice = sample([(slice(0, 4), slice(0, 1))] * 2, ["a", "b"])
    assert patch_labels([twice], (1, 2), ["a", "b"])[0, 0] == -1


def test_labels_of_creatures():
    samples = list(load_dataset("creatures", "dev", 72, limit=3))
    labels = patch_labels(samples, (12, 12), PARTS)
    whole = patch_labels(samples, (12, 12), ["animal"])
    assert torch.equal(labels == -1, whole == -1)  # the parts make up the animal
    masks = [s.masks[0].float().reshape(12, 6, 12, 6).mean((1, 3)).flatten() for s in samples]
    assert torch.equal(whole == 0, torch.stack(masks) >= 0.5)
    assert (patch_labels(samples, (12, 12), ["wing"]) == -1).all()
    with pytest.raises(ValueError, match="7 x 12 patches does not divide creatures/dev/0"):
        patch_labels(samples, (7, 12), PARTS)


def test_auc_by_hand():
    truth = torch.tensor([[True, True, False, False]])
    for scores, value in (
        ([3.0, 2.0, 1.0, 0.0], 1.0),
        ([0.0, 1.0, 2.0, 3.0], 0.0),
        ([3.0, 1.0, 2.0, 0.0], 0.75),  # of 4 pairs one is in the wrong order
        ([1.0, 0.0, 0.0, 0.0], 0.75),  # two pairs right, two tied
        ([1.0, 1.0, 1.0, 1.0], 0.5),
    ):
        assert separation_auc(torch.tensor([scores]), truth).tolist() == [value]


def test_auc_is_scikit_learns_picture_by_picture(rng):
    scores = torch.randn(4, 50, generator=rng).round(decimals=1)
    truth = torch.rand(4, 50, generator=rng) < 0.3
    truth[2], truth[3] = True, False
    found = separation_auc(scores, truth)
    for index in (0, 1):
        assert found[index].item() == pytest.approx(roc_auc_score(truth[index], scores[index]))
    assert found[2:].isnan().all()
    scores[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        separation_auc(scores, truth)


def test_planted_parts_are_found(planted):
    features, labels = planted
    told = linear_probe(features[:6], labels[:6], features[6:])
    assert torch.equal(balanced_accuracy(told, labels[6:]), torch.ones(6, dtype=torch.float64))
    clusters = cluster_patches(features, labels != -1, 4)
    assert torch.equal(clusters == -1, labels == -1)
    assert torch.equal(adjusted_rand(clusters, labels), torch.ones(12, dtype=torch.float64))


def test_shuffled_parts_are_told_by_chance_only(planted, rng):
    features, labels = planted
    shuffled = torch.randint(0, 4, labels.shape, generator=rng)
    told = linear_probe(features[:6], shuffled[:6], features[6:])
    # 6 images of 24 patches, four labels
    assert balanced_accuracy(told, shuffled[6:]).mean().item() == pytest.approx(0.25, abs=0.1)
    clusters = cluster_patches(features, torch.ones_like(labels, dtype=torch.bool), 4)
    assert adjusted_rand(clusters, shuffled).mean().abs() < 0.05


def test_rare_labels_weigh_as_much_as_common_ones(rng):
    """Two overlapping labels, one of them 50 times as frequent: half of each is told at best."""
    labels = torch.zeros(4, 500, dtype=torch.int64)
    labels[:, :10] = 1
    features = labels[..., None] + torch.randn(4, 500, 1, generator=rng)
    told = linear_probe(features[:2], labels[:2], features[2:])
    recall = (told == 1)[labels[2:] == 1].double().mean()
    assert recall > 0.5  # a probe that weighs patches says 0 everywhere


def test_a_probe_of_few_components_sees_only_those(rng):
    labels = torch.arange(200).reshape(2, 100) % 2
    loud = 100 * torch.randn(2, 100, 1, generator=rng)
    features = torch.cat([loud, labels[..., None] + 0.01], dim=-1)
    whole = balanced_accuracy(linear_probe(features, labels, features), labels)
    one = balanced_accuracy(linear_probe(features, labels, features, n_components=1), labels)
    assert (whole == 1).all() and (one < 0.7).all()


def test_clusters_repeat(planted, rng):
    features, labels = planted
    noise = torch.randn(features.shape, generator=rng)
    first, again = (cluster_patches(noise, labels != -1, 4, seed=3) for _ in range(2))
    assert torch.equal(first, again)


def test_balanced_accuracy_by_hand():
    truth = torch.tensor([[0, 0, 0, 1, -1], [2, 2, 2, 2, 2], [-1, -1, -1, -1, -1]])
    found = torch.tensor([[0, 0, 5, 0, 1], [2, 2, 2, 1, 2], [0, 0, 0, 0, 0]])
    scores = balanced_accuracy(found, truth)
    assert scores[:2].tolist() == pytest.approx([(2 / 3 + 0) / 2, 4 / 5])
    assert scores[2].isnan()


def test_rand_index_by_hand():
    truth = torch.tensor([[0, 0, 1, 1, -1], [0, 0, 1, 1, -1], [0, 0, 0, 0, -1]])
    found = torch.tensor([[7, 7, 3, 3, 3], [0, 1, 0, 1, 0], [0, 0, 1, 1, 0]])
    scores = adjusted_rand(found, truth)
    # second: no pair together in both, 2 of 6 expected by 2 x 2 / 6: (0 - 2/3) / (2 - 2/3) = -0.5
    assert scores[:2].tolist() == pytest.approx([1.0, -0.5])
    assert scores[2].isnan()


def test_rand_index_is_scikit_learns(rng):
    truth = torch.randint(-1, 4, (20, 15), generator=rng)
    found = torch.randint(-1, 3, (20, 15), generator=rng)
    truth[0], found[0] = torch.arange(15) % 15, torch.arange(15)  # no two patches together
    scores = adjusted_rand(found, truth)
    for one, other, score in zip(found, truth, scores, strict=True):
        counted = other != -1
        expected = adjusted_rand_score(other[counted], one[counted])
        assert score.item() == pytest.approx(expected, abs=1e-12)


def test_what_cannot_be_told(planted):
    features, labels = planted
    with pytest.raises(ValueError, match="train_labels hold fewer than two different labels"):
        linear_probe(features, torch.where(labels > 0, 1, -1), features)
    with pytest.raises(ValueError, match="3 patches do not make 4 clusters"):
        cluster_patches(features[:1, :4], torch.tensor([[True, True, True, False]]), 4)
