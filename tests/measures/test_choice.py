"""Choices on one half, scores on the other: by hand, and against luck."""

import numpy as np
import pandas as pd
import pytest

from crate_analysis.measures import cross_fit


def table(values, **columns):
    """(images, layers) as a frame."""
    image, layer = np.indices(np.shape(values)).reshape(2, -1)
    frame = pd.DataFrame({"image": image, "layer": layer, "iou": np.ravel(values)})
    return frame.assign(**columns)


def test_each_half_is_scored_by_the_choice_of_the_other():
    # even images do best in layer 1, odd ones in layer 0
    frame = table([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = cross_fit(frame, "layer")
    assert found["image"].tolist() == [0, 1, 2, 3] and found.half.tolist() == [0, 1, 0, 1]
    assert found.layer.tolist() == [0, 1, 0, 1]
    assert found.iou.tolist() == [0.1, 0.2, 0.3, 0.4]


def test_luck_is_not_scored():
    """Of 50 layers of noise the best looks good on the images that it was chosen on, only there."""
    noise = np.random.default_rng(0).standard_normal((400, 50))
    assert noise.mean(0).max() > 0.1
    assert abs(cross_fit(table(noise), "layer").iou.mean()) < 0.06


def test_a_layer_that_is_better_is_chosen_both_ways():
    values = np.random.default_rng(1).standard_normal((100, 6))
    values[:, 3] += 2
    for seed in (None, 0, 1):
        found = cross_fit(table(values), "layer", seed=seed)
        assert set(found.layer) == {3} and found.half.value_counts().tolist() == [50, 50]
        assert found.iou.to_numpy() == pytest.approx(values[:, 3])


def test_seeds_draw_other_halves_and_the_same_ones_again():
    frame = table(np.zeros((20, 2)))
    halves = [cross_fit(frame, "layer", seed=seed).half.tolist() for seed in (None, 0, 1, 0)]
    assert halves[1] == halves[3] and halves[0] != halves[1] != halves[2]


def test_choices_are_made_within_groups_and_values_go_with_them():
    values = [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    frame = pd.concat(
        [
            table(values, model="a", average_precision=0.5),
            table(1 - np.array(values), model="b", average_precision=0.25),
        ]
    )
    found = cross_fit(frame, ["layer"])
    assert found.groupby("model").layer.unique().map(list).to_dict() == {"a": [1], "b": [0]}
    assert (found.iou == 1).all()
    assert found.groupby("model").average_precision.mean().to_dict() == {"a": 0.5, "b": 0.25}
    # whatever else a row is of, such as a column that somebody added, is kept apart too
    steps = frame.rename(columns={"model": "noise"}).replace({"noise": {"a": 0.5, "b": 1.5}})
    assert cross_fit(steps, "layer").iou.tolist() == found.iou.tolist()


def test_several_masks_of_an_image_count_as_one_image():
    """Image 0 has three masks that favour layer 0; images 2 and 4 favour layer 1."""
    rows = [(0, 0, 1.0), (0, 1, 0.0)] * 3 + [(i, n, float(n)) for i in (2, 4) for n in (0, 1)]
    rows += [(i, n, 0.5) for i in (1, 3, 5) for n in (0, 1)]
    found = cross_fit(pd.DataFrame(rows, columns=["image", "layer", "iou"]), "layer")
    assert set(found[found.half == 1].layer) == {1}
    assert len(found) == 6


def test_a_head_is_chosen_for_each_name_where_asked():
    rows = [
        (image, name, head, float((name == "ears") == (head == 1)))
        for image in range(4)
        for name in ("ears", "tail")
        for head in (0, 1)
    ]
    frame = pd.DataFrame(rows, columns=["image", "mask", "head", "average_precision"])
    found = cross_fit(frame, "head", "average_precision", by=["mask"])
    assert found.groupby("mask")["head"].unique().map(list).to_dict() == {"ears": [1], "tail": [0]}
    assert (found.average_precision == 1).all() and len(found) == 8
    assert (cross_fit(frame, "head", "average_precision").average_precision == 0.5).all()


def test_what_cannot_be_chosen_is_an_error():
    with pytest.raises(ValueError, match="the frame has no column 'head'; it has image, layer"):
        cross_fit(table(np.zeros((4, 2))), ["layer", "head"])
    with pytest.raises(ValueError, match="one half of the images has no iou"):
        cross_fit(table(np.zeros((1, 2))), "layer")
    lone = pd.concat([table(np.zeros((4, 2)), mask="a"), table(np.zeros((1, 2)), mask="b")])
    with pytest.raises(ValueError, match="has no iou of b to choose by; take more images"):
        cross_fit(lone, "layer", by=["mask"])
