"""Figures hold what they were given; how they look is for eyes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from crate_analysis.plotting import (
    GAP,
    heat,
    interval_dots,
    layer_curves,
    model_colours,
    overlay,
    reference_line,
    sheet,
)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


@pytest.fixture(autouse=True)
def settings_are_left_alone():
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before


def test_curves_are_means_by_layer_counted_from_one(ax):
    frame = pd.DataFrame(
        {"model": "a", "layer": [0, 0, 1, 1], "value": [1.0, 3.0, 5.0, 9.0], "weights": "trained"}
    )
    colours = model_colours(["a"])
    assert layer_curves(frame, colours, "weights", ["trained"], "rate", ax) is ax
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 2], [2, 7]])
    assert ax.get_ylabel() == "rate"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "trained"]


def test_models_keep_their_colours():
    assert model_colours(["a", "b"])["b"] == model_colours(["a", "b", "c"])["b"]
    assert len(set(model_colours(list("abcdef")).values())) == 6


def test_dots_stand_at_their_means(ax):
    frame = pd.DataFrame(
        {"label": ["a", "chance"], "model": ["a", "none"], "mean": [0.4, 0.1], "low": [0.3, 0.05],
         "high": [0.5, 0.15]}
    )  # fmt: skip
    interval_dots(frame, model_colours(["a"]), "IoU", ax)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.3, 0], [0.5, 0]])
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.4, 0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "chance"]


def test_reference_lines_are_named(ax):
    reference_line(0.3, "chance", ax)
    assert ax.texts[0].get_text() == "chance"
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.3, 0.3])


def test_heat_is_brightest_at_the_maximum_and_blocky():
    colours = heat(np.array([[0.0, 0.1], [0.2, 0.05]]), (4, 6)).astype(int).sum(-1)
    assert colours.shape == (4, 6)
    assert (colours[2:, :3] == colours.max()).all() and colours[0, 0] == colours.min()
    assert heat(np.zeros((2, 2)), (2, 2)).shape == (2, 2, 3)


def test_overlay_tints_the_mask_only():
    picture = np.full((2, 2, 3), 100, np.uint8)
    tinted = overlay(picture, np.array([[True, False], [False, False]]))
    assert tinted[0, 0, 0] > tinted[0, 0, 2] + 50
    assert np.ptp(tinted[1, 1]) == 0


def test_a_sheet_holds_every_tile_in_its_place(ax):
    tiles = [[np.full((3, 4, 3), 10 * (3 * row + column), np.uint8) for column in range(3)]
             for row in range(2)]  # fmt: skip
    sheet(tiles, ["a", "b", "c"], ["x", "y"], ax)
    canvas = ax.images[0].get_array()
    assert canvas.shape == (2 * 3 + GAP, 3 * 4 + 2 * GAP, 3)
    assert canvas[3 + GAP, 2 * (4 + GAP), 0] == 50
    assert (canvas[3] == 255).all()
