import numpy as np
import pytest

from crate_analysis.measures import mean_interval


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
    with pytest.raises(ValueError, match="at least 2 values, here are 1"):
        mean_interval([1.0, np.nan])
