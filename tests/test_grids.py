"""The results of a grid of runs, and the order of two models in them."""

import html

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from crate_analysis.grids import CASE, model_order, read_grid_results, stable_order
from crate_analysis.text import escape, figure_text, one_line

COLUMNS = [*CASE, "model", "mean", "low", "high"]


def results(*rows):
    """`(quantity, setting, model, mean, half-width)` each."""
    full = [("n", q, s, model, mean, mean - w, mean + w) for q, s, model, mean, w in rows]
    return pd.DataFrame(full, columns=COLUMNS)


def test_order_in_units_of_both_half_widths():
    rows = results(
        ("IoU", "d", "a", 0.6, 0.1), ("IoU", "d", "b", 0.3, 0.05), ("IoU", "d", "c", 9, 0)
    )
    (row,) = model_order(rows, "a", "b").to_dict("records")
    assert row["difference"] == pytest.approx(0.3) and row["units"] == pytest.approx(2.0)
    (row,) = model_order(rows, "b", "a").to_dict("records")
    assert row["difference"] == pytest.approx(-0.3) and row["units"] == pytest.approx(-2.0)


def test_numbers_without_an_interval_differ_beyond_any_unit_or_not_at_all():
    rows = results(("x", "d", "a", 2, 0), ("x", "d", "b", 1, 0), ("y", "d", "a", 1, 0),
                   ("y", "d", "b", 1, 0))  # fmt: skip
    assert model_order(rows, "a", "b").units.tolist() == [np.inf, 0]


def test_an_order_is_stable_when_no_setting_turns_it():
    order = model_order(
        results(
            *[("same", s, m, v, 0.1) for s in "de" for m, v in (("a", 1.0), ("b", 0.0))],
            *[("turns", s, m, v, 0.1) for s, m, v in [("d", "a", 1), ("d", "b", 0), ("e", "a", 0),
                                                     ("e", "b", 1)]],
            *[("close", s, m, v, 1.0) for s in "de" for m, v in (("a", 1.0), ("b", 0.5))],
            ("once", "d", "a", 1, 0.1), ("once", "d", "b", 0, 0.1),
        ), "a", "b",
    )  # fmt: skip
    found = stable_order(order).set_index("quantity")
    assert found.same.to_dict() == {"same": True, "turns": False, "close": True}
    assert found.clear.to_dict() == {"same": True, "turns": False, "close": False}


def test_what_a_folder_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no grid: make one with `make grid"):
        read_grid_results(tmp_path)
    runs = "notebook,models,dataset,seed,labels,folder,state,reason\n"
    runs += 'n,010 + b,010,0,"[""010"", ""b""]",x,done,\nn,c,010,1,"[""c""]",y,missing,NA\n'
    (tmp_path / "cells.csv").write_text(runs)
    (tmp_path / "results.csv").write_text("")
    empty = read_grid_results(tmp_path)
    assert len(empty.done) == 1 and empty.models == [] and len(empty.results) == 0
    assert empty.runs.reason.fillna("").tolist() == ["", "NA"]
    (tmp_path / "results.csv").write_text(
        "notebook,models,dataset,seed,model,quantity,mean,low,high\n"
        "n,010 + b,010,0,b,IoU,0.5,0.4,0.6\nn,010 + b,010,0,010,IoU,0.5,0.4,0.6\n"
        "n,010 + b,010,0,centre prior,IoU,0.1,,\n"
    )
    found = read_grid_results(tmp_path)
    assert found.models == ["010", "b"], "in the grid's order, without baselines"
    assert found.results.setting.unique().tolist() == ["010, seed 0"]


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=a>", "*a*", "_a_", "`a`", "[a](b)", "$a$", "a|b", "&", "~~a~~", "\\*"],
)
def test_escaped_text_is_shown_as_it_is_by_html_and_markdown(text):
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    assert parser.renderInline(escape(text)) == html.escape(text)
    assert html.unescape(escape(text)) == text and "<" not in escape(text)


def test_text_in_one_line():
    assert one_line(" a\n\tb\x00c ") == "a b c"
    assert len(one_line("x" * 999)) == 300


def test_labels_in_figures_are_wrapped_and_hold_no_formula():
    text = figure_text(r"a$\frac$b " + "long " * 20 + "x" * 90)
    assert max(map(len, text.split("\n"))) <= 30
    figure = plt.figure()
    figure.text(0, 0, text)
    figure.canvas.draw()  # a formula of this kind would raise
    plt.close(figure)
