import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.stats import ttest_ind

from crate_analysis.measures import (
    contrast_interval,
    design_interval,
    interval_frame,
    mean_interval,
    paired_difference,
    ratio_interval,
    run_image_interval,
    run_interval,
)


def test_interval_of_normal_values_is_near_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert low < 3 < high


def test_images_without_the_truth_are_left_out():
    assert mean_interval([1.0, np.nan, 3.0]).mean == 2.0


def test_equal_values_have_no_spread():
    assert mean_interval([0.5] * 4) == (0.5, 0.5, 0.5)


def test_one_value_has_no_interval():
    one = mean_interval([1.0, np.nan])
    assert one.mean == 1 and np.isnan([one.low, one.high]).all()
    assert str(one) == "1 [no interval]"
    with pytest.raises(ValueError, match="no value to take the mean of"):
        mean_interval([np.nan])


def test_a_contrast_of_two_groups_is_the_two_sample_t_interval():
    mean, low, high = contrast_interval([[1, 3], [4, 6]], [-1, 1])
    # pooled variance 2, standard error sqrt(2), and 4.3027 for two degrees of freedom
    assert (mean, low, high) == pytest.approx((3, 3 - 4.3027 * 2**0.5, 3 + 4.3027 * 2**0.5), 1e-4)
    first, second = [0.1, 0.4, 0.2], [0.9, 0.5]
    expected = ttest_ind(first, second).confidence_interval(0.9)
    assert contrast_interval([first, second], [1, -1], 0.9)[1:] == pytest.approx(tuple(expected))


def test_an_interaction_weighs_each_group_by_its_repeats():
    # squares within the groups: 2, 0, 0, 0; degrees of freedom: 2 + 0 + 0 + 1
    mean, low, high = contrast_interval([[1, 2, 3], [5], [4], [6, 6]], [1, -1, -1, 1])
    error = (2 / 3 * (1 / 3 + 1 + 1 + 1 / 2)) ** 0.5
    assert mean == pytest.approx(-1)
    assert (high - low) / 2 == pytest.approx(3.1824 * error, rel=1e-4)


@pytest.mark.parametrize(
    ("groups", "weights", "message"),
    [
        ([[1.0], [2.0]], [1, -1], r"groups of \[1, 1\] values have no spread"),
        ([[], [1.0, 2.0, 3.0]], [1, -1], r"groups of \[0, 3\] values"),
        ([[1.0, 2.0]], [1, -1], "2 weights for 1 groups"),
    ],
)
def test_what_has_no_contrast_is_refused(groups, weights, message):
    with pytest.raises(ValueError, match=message):
        contrast_interval(groups, weights)


def test_paired_differences_go_by_image():
    first = pd.Series([0.5, 0.7, 0.9], index=[3, 1, 2])
    second = pd.Series([0.1, 0.2, 0.4], index=[1, 2, 3])
    found = paired_difference(first, second)
    assert found.mean == pytest.approx((0.1 + 0.6 + 0.7) / 3)
    assert found.low < found.mean < found.high
    with pytest.raises(ValueError, match="not of the same images"):
        paired_difference(first, second[1:])
    with pytest.raises(ValueError, match="not of the same images"):
        paired_difference(first, pd.Series([0.1, 0.2, 0.4], index=[1, 1, 3]))
    with pytest.raises(ValueError, match=r"there are \(3,\) and \(2,\) values"):
        paired_difference([1, 2, 3], [1, 2])


def test_the_interval_over_runs_is_students():
    values = [0.3, 0.4, 0.8]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert run_interval(values) == pytest.approx((0.5, low, high))
    assert np.isnan(run_interval([0.3]).low) and run_interval([0.3]).mean == 0.3


def test_images_that_all_runs_share_widen_the_interval():
    rng = np.random.default_rng(0)
    runs, images = rng.standard_normal((4, 1)), rng.standard_normal((1, 50))
    alone = run_interval((runs + 0 * images).mean(1))
    same = run_image_interval(runs + 0 * images)
    assert same == pytest.approx(alone)
    wide = run_image_interval(0.01 * runs + images)
    image_error = images.std(ddof=1) / 50**0.5
    assert (wide.high - wide.low) / 2 == pytest.approx(
        scipy.stats.t.ppf(0.975, 49) * image_error, rel=0.05
    )
    assert np.isnan(run_image_interval(images).low)
    with pytest.raises(ValueError, match=r"values are of shape \(4,\)"):
        run_image_interval([1.0, 2, 3, 4])


def test_the_interval_over_runs_and_images_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        runs, images = 0.3 * rng.standard_normal((4, 1)), rng.standard_normal((1, 30))
        found = run_image_interval(runs + images + rng.standard_normal((4, 30)))
        hits.append(found.low < 0 < found.high)
    assert 0.92 < np.mean(hits) < 0.99


def test_the_errors_of_runs_and_of_a_set_of_images_add_up():
    runs = [0.3, 0.4, 0.5]
    assert design_interval(runs, 0.0) == pytest.approx(run_interval(runs))
    wide = design_interval(runs, 1.0)
    assert (wide.high - wide.low) / 2 == pytest.approx(1.96, rel=0.01)
    assert design_interval([0.2, 0.2], 0.0) == (0.2, 0.2, 0.2)


def test_frames_of_intervals_average_an_image_first():
    frame = pd.DataFrame({"layer": 0, "image": [0, 0, 1], "iou": [0.0, 1.0, 1.0]})
    [row] = interval_frame(frame, "iou", ["layer"]).itertuples(index=False)
    assert (row.layer, row.mean, row.images) == (0, 0.75, 2)
    assert (row.low, row.high) == mean_interval([0.5, 1.0])[1:]


def test_a_share_of_a_mean():
    rng = np.random.default_rng(0)
    before = rng.normal(1, 0.3, 200)
    found = ratio_interval(0.5 * before + rng.normal(0, 0.05, 200), before)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.03
    assert ratio_interval([1, np.nan, 3], [2, 5, 6]) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="above 0"):
        ratio_interval([1, 2], [-1, 1])
