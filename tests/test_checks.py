"""What belongs together is not broadcast: functions of two batches say what does not match."""

import pytest
import torch

from crate_analysis.measures import cosine, turned_cosine, with_length_of
from crate_analysis.probes import (
    adjusted_rand,
    attention_share,
    balanced_accuracy,
    cluster_patches,
    effective_patches,
    linear_probe,
    map_similarity,
    separation_auc,
)
from crate_analysis.segmentation import average_precision, best_head_iou, head_iou, patch_ceiling

ONE, TWO = 1, 2


def maps(count):
    return torch.ones(count, 3, 2, 2)


def planes(count):
    return torch.ones(count, 3, 4, 4, dtype=torch.bool)


def labels(count):
    return torch.zeros(count, 4, dtype=torch.long)


def tokens(count):
    return torch.ones(count, 4, 3)


PAIRS = {
    "head_iou": lambda a, b: head_iou(planes(a), planes(b)),
    "best_head_iou": lambda a, b: best_head_iou(planes(a), planes(b)),
    "ignored": lambda a, b: head_iou(planes(a), planes(a), planes(b)[:, 0]),
    "average_precision": lambda a, b: average_precision(tokens(a), tokens(b), tokens(b)[:, 0]),
    "pixels": lambda a, b: average_precision(tokens(a), tokens(a), tokens(b)[:, 0]),
    "patch_ceiling": lambda a, b: patch_ceiling(planes(a), 2, planes(b)[:, 0]),
    "attention_share": lambda a, b: attention_share(maps(a), planes(b)),
    "map_similarity": lambda a, b: map_similarity(maps(a), maps(b)),
    "separation_auc": lambda a, b: separation_auc(tokens(a)[..., 0], labels(b) == 0),
    "balanced_accuracy": lambda a, b: balanced_accuracy(labels(a), labels(b)),
    "adjusted_rand": lambda a, b: adjusted_rand(labels(a), labels(b)),
    "cluster_patches": lambda a, b: cluster_patches(tokens(a), labels(b) == 0, 1),
    "linear_probe": lambda a, b: linear_probe(tokens(a), labels(b), tokens(a)),
    "cosine": lambda a, b: cosine(tokens(a), tokens(b)),
    "turned_cosine": lambda a, b: turned_cosine(tokens(a), tokens(b)),
    "with_length_of": lambda a, b: with_length_of(tokens(a), tokens(b)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("counts", [(ONE, TWO), (TWO, ONE), (TWO, 3)])
def test_unequal_batches_are_refused(name, counts, unchecked):
    with pytest.raises(ValueError, match="give both of the same images"):
        PAIRS[name](*counts)


def test_images_without_masks_are_measured_against_none():
    some, none, void = planes(TWO), planes(TWO)[:, :0], planes(TWO)[:, 0]
    for ignored in (None, void):
        assert head_iou(some, none, ignored).shape == (2, 3, 0)
        assert patch_ceiling(none, 2, ignored).shape == (2, 0, 2, 2)
    assert average_precision(tokens(TWO), tokens(TWO)[:, :0], tokens(TWO)[:, 0]).shape == (2, 4, 0)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -1.0])
def test_maps_that_are_no_attention_are_refused(bad):
    broken = maps(TWO)
    broken[1, 2, 1, 0] = bad
    for measure in (
        effective_patches,
        lambda given: map_similarity(given, maps(TWO)),
        lambda given: attention_share(given, planes(TWO)),
    ):
        with pytest.raises(ValueError, match="negative entries or NaN, or infinite ones"):
            measure(broken)


def test_large_maps_are_read_like_any_other():
    one = torch.rand(TWO, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(effective_patches(one * 1e38), effective_patches(one))
    torch.testing.assert_close(
        effective_patches(one * 1e-38), effective_patches(one), rtol=1e-3, atol=0
    )
