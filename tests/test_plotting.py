"""Figures hold what they were given; how they look is for eyes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from crate_analysis.plotting import (
    GAP,
    chance_band,
    frame_patch,
    group_dots,
    head_grid,
    heat,
    interval_curves,
    interval_dots,
    layer_curves,
    model_colours,
    outlines,
    overlay,
    pair_map,
    reference_line,
    rgb_tile,
    run_dots,
    sheet,
    smooth_heat,
    spectra,
    step_axis,
    tint,
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


def test_a_dot_without_an_interval_is_alone_and_has_its_number(ax):
    frame = pd.DataFrame({"label": ["a"], "model": ["a"], "mean": [0.4], "low": np.nan})
    interval_dots(frame.assign(high=np.nan), {}, ax=ax)
    assert ax.texts[0].get_text() == "0.400" and ax.texts[0].xy == (0.4, 0)
    assert ax.get_xlim() == pytest.approx((0, 0.46))


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


def test_a_mask_of_patches_is_one_of_their_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    patches = np.array([[True, False, False], [False, True, False]])
    pixels = patches.repeat(2, 0).repeat(2, 1)
    assert np.array_equal(overlay(picture, patches), overlay(picture, pixels))
    assert np.array_equal(tint(picture, patches[None]), tint(picture, pixels[None]))


def test_a_sheet_holds_every_tile_in_its_place(ax):
    tiles = [[np.full((3, 4, 3), 10 * (3 * row + column), np.uint8) for column in range(3)]
             for row in range(2)]  # fmt: skip
    sheet(tiles, ["a", "b", "c"], ["x", "y"], ax)
    canvas = ax.images[0].get_array()
    assert canvas.shape == (2 * 3 + GAP, 3 * 4 + 2 * GAP, 3)
    assert canvas[3 + GAP, 2 * (4 + GAP), 0] == 50
    assert (canvas[3] == 255).all()


def test_long_names_above_a_head_grid_are_turned(ax):
    heads = pd.MultiIndex.from_product([range(2), range(2)])
    names = ["a long name", "another"]
    head_grid(pd.DataFrame(np.zeros((4, 2)), heads, names), ax=ax)
    ax.figure.canvas.draw()
    labels = [tick.label2 for tick in ax.xaxis.get_major_ticks()]
    assert [label.get_text() for label in labels if label.get_visible()] == names
    assert {label.get_rotation() for label in labels} == {45}


def test_head_grid_shows_hundredths_and_frames_what_is_marked(ax):
    index = pd.MultiIndex.from_product([[0, 1], [0, 1]], names=["layer", "head"])
    scores = pd.DataFrame(
        {"legs": [0.254, -0.1, -0.001, 0.9], "tail": [0.0, np.nan, 0.1, 0.2]}, index
    )
    assert head_grid(scores, scores > 0.25, 0.8, ax) is ax
    shown = [text.get_text() for text in ax.texts]
    assert shown == ["25", "0", "−10", "0", "10", "90", "20", "layer 1", "layer 2"]
    assert [patch.get_xy() for patch in ax.patches] == [(-0.5, -0.5), (-0.5, 2.5)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "1", "2"]
    assert ax.images[0].get_clim() == (-0.8, 0.8)
    index = pd.MultiIndex.from_product([range(12), range(12)])
    crowded = head_grid(pd.DataFrame({"legs": np.zeros(144)}, index), ax=plt.figure().subplots())
    assert len(crowded.texts) == 12 and len(crowded.get_yticks()) == 0
    plt.close(crowded.figure)


def test_group_dots_stand_in_their_group(ax):
    frame = pd.DataFrame(
        {"group": ["legs", "legs", "tail"], "label": ["a", "b", "b"], "mean": [0.4, 0.1, 0.2],
         "low": [0.3, 0.05, 0.1], "high": [0.5, 0.15, 0.3]}
    )  # fmt: skip
    levels = pd.DataFrame({"chance": [0.05, 0.02], "prior": [0.2, 0.3]}, ["legs", "tail"])
    assert group_dots(frame, model_colours(["a", "b"]), levels, "AP", ax) is ax
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.4, -0.175]])
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.1, 0.175], [0.2, 1.175]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["legs", "tail"]
    _, names = ax.get_legend_handles_labels()
    assert names == ["a", "b", "chance", "prior"]
    chance = ax.collections[2].get_segments()
    np.testing.assert_allclose(chance[1], [[0.02, 0.58], [0.02, 1.42]])


def test_runs_that_do_not_count_are_hollow(ax):
    runs = pd.DataFrame(
        {"cell": ["a", "b", "a"], "value": [0.1, 0.3, 0.9], "counts": [True, True, False]}
    )
    means = {"b": (0.3, np.nan, np.nan), "a": (0.1, 0.05, 0.15)}
    colours = model_colours(["a", "b"])
    assert run_dots(runs, means, colours, "IoU", ax) is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [tuple(dot.get_xydata()[0]) for dot in dots] == [(0.3, 0), (0.1, 1), (0.9, 1)]
    faces = [dot.get_markerfacecolor() for dot in dots]
    assert faces == [colours["b"], colours["a"], "none"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a"]
    np.testing.assert_allclose(ax.lines[-2].get_xdata(), [0.05, 0.15])
    assert ax.get_xlabel() == "IoU"


def test_outlines_lie_on_their_tiles(ax):
    tile = np.zeros((6, 8, 3), np.uint8)
    sheet([[tile, tile], [tile, tile]], ax=ax)
    before = ax.get_xlim(), ax.get_ylim()
    mask = np.zeros((6, 8), bool)
    mask[:3, 4:] = True  # touches the tile's edge, where the line must close
    outlines([[None, None], [None, mask]], ax=ax)
    assert (ax.get_xlim(), ax.get_ylim()) == before
    (line,) = ax.collections
    box = line.get_paths()[0].get_extents()
    left, top = 8 + GAP, 6 + GAP
    assert (box.x0, box.x1) == (left + 3.5, left + 7.5)
    assert (box.y0, box.y1) == (top - 0.5, top + 2.5)


def test_a_tile_of_colours_is_blocky_and_white_where_nothing_is():
    colours = np.zeros((2, 2, 3))
    colours[0, 1] = [0.2, 0.4, 0.6]
    colours[1, 0] = np.nan
    tile = rgb_tile(colours, (4, 6))
    assert tile.shape == (4, 6, 3)
    assert (tile[:2, 3:] == [51, 102, 153]).all()
    assert (tile[2:, :3] == 255).all() and (tile[2:, 3:] == 0).all()


def test_smooth_heat_passes_through_the_patches_and_leaves_even_maps_even():
    attention = np.zeros((5, 5))
    attention[1, 3] = 1.0
    colours = smooth_heat(attention, (45, 45)).astype(int).sum(-1)
    assert np.unravel_index(colours.argmax(), colours.shape) == (13, 31)  # the middle of (1, 3)
    dark = heat(0 * attention, (5, 5))[0, 0].astype(int).sum()
    assert colours.min() == colours[-1, 0] == dark and len(np.unique(colours)) > 20
    assert np.ptp(smooth_heat(np.full((3, 4), 0.2), (12, 12)), axis=(0, 1)).tolist() == [0, 0, 0]


def test_a_frame_stands_in_its_patch():
    picture = np.full((20, 40, 3), 90, np.uint8)
    framed = frame_patch(picture, (1, 7), (4, 8), (1.0, 0.0, 0.0))
    red = (framed == [255, 0, 0]).all(-1)
    assert red[5:10, 35:].sum() == red.sum() == 5 * 5 - 3 * 3
    assert (framed[~red] == 90).all() and (picture == 90).all()


def test_pairs_are_numbered_and_a_head_with_itself_is_blank(ax):
    values = np.array([[1.0, 0.3, 0.2], [0.3, 1.0, 0.25], [0.2, 0.25, 1.0]])
    assert pair_map(values, 0.25, 0.1, ax=ax) is ax
    cells = ax.collections[0]
    assert np.ma.getmaskarray(cells.get_array()).reshape(3, 3).diagonal().all()
    assert cells.get_clim() == pytest.approx((0.15, 0.35))
    written = [text.get_text() for text in ax.texts]
    assert written == ["0.30", "0.20", "0.30", "0.25", "0.20", "0.25"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "3"]


def test_pairs_of_many_heads_have_no_numbers(ax):
    assert not pair_map(np.eye(8), 0.1, 0.1, ax=ax).texts
    assert not pair_map(np.eye(3), 0.1, 0.1, numbers=False, ax=ax).texts


def test_a_chance_band_lies_between_its_levels(ax):
    frame = pd.DataFrame({"layer": [0, 1], "low": [-1.0, -2.0], "high": [1.0, 2.0]})
    assert chance_band(frame, ax) is ax
    corners = ax.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in corners} == {(1, -1), (1, 1), (2, -2), (2, 2)}


def test_spectra_are_one_line_a_layer(ax):
    frame = pd.DataFrame(
        {"model": "a", "weights": "trained", "layer": [0, 0, 1, 1], "rank": [1, 2, 1, 2],
         "value": [3.0, 1.0, 2.0, 1.5]}
    )  # fmt: skip
    assert spectra(frame, model_colours(["a"]), "weights", ["trained"], "size", ax) is ax
    drawn = [line.get_xydata().tolist() for line in ax.lines if len(line.get_xydata())]
    assert drawn == [[[1, 3], [2, 1]], [[1, 2], [2, 1.5]]]


def test_interval_curves_draw_what_they_are_given(ax):
    frame = pd.DataFrame(
        {"model": "a", "step": [2, 1], "mean": [0.4, 0.1], "low": [0.3, 0.0], "high": [0.5, 0.2]}
    )
    interval_curves(frame, model_colours(["a"]), "step", "IoU", ax)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 0.1], [2, 0.4]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "IoU")


def test_steps_that_double_lie_at_even_distances(ax):
    step_axis([0, 24, 48, 96], ax)
    places = ax.transData.transform([(step, 0) for step in (0, 24, 48, 96)])[:, 0]
    gaps = np.diff(places)
    assert gaps[0] > 0
    np.testing.assert_allclose(gaps[1], gaps[2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "24", "48", "96"]
    step_axis([0], ax)  # only the initial weights were kept


def test_masks_are_tinted_each_in_its_colour():
    picture = np.full((2, 3, 3), 100, np.uint8)
    masks = np.zeros((2, 2, 3), bool)
    masks[0, 0, 0] = masks[1, 0, 1] = True
    tinted = tint(picture, masks)
    assert (tinted[1] == 100).all() and (tinted[0, 2] == 100).all()
    assert tinted[0, 0].argmax() == 0 and tinted[0, 1].argmax() == 2
    assert (tint(picture, masks[:0]) == picture).all()


def test_numbers_beside_dots_have_the_digits_asked_for(ax):
    frame = pd.DataFrame({"label": ["a"], "model": ["a"], "mean": [-4.25], "low": [-5.0],
                          "high": [-3.0]})  # fmt: skip
    interval_dots(frame, {}, "change", ax, digits=1)
    assert [text.get_text() for text in ax.texts] == ["-4.2"]
    assert ax.get_xlim()[0] < -5 and ax.get_xlim()[1] == 0
