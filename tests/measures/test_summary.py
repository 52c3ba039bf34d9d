import numpy as np
import pytest
from scipy.stats import ttest_ind

from crate_analysis.measures import contrast_interval, mean_interval


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
