"""Findings: rows, verdicts by a rule, and sentences that are right whatever comes out."""

import math

import pandas as pd
import pytest

from crate_analysis.measures import MeanInterval
from crate_analysis.study import RESULTS, Finding, Number
from crate_analysis.study.findings import (
    ByName,
    Subject,
    Subjects,
    decide,
    markdown_table,
    results_frame,
    write_sentences,
)

UP = MeanInterval(0.4, 0.3, 0.5)
DOWN = MeanInterval(-0.4, -0.5, -0.3)
OPEN = MeanInterval(0.1, -0.1, 0.3)


def subjects(*findings: Finding) -> Subjects:
    frame = results_frame(findings)
    names = list(dict.fromkeys(finding.quantity for finding in findings))
    by = {name: Subject(name, rows, names, layer=5) for name, rows in frame.groupby("model")}
    one, *others = by.values()
    return Subjects(main=one, by=by, **({"other": others[-1]} if others else {}))


def test_values_give_their_mean_and_interval():
    row = Finding("a", "IoU", [0.2, 0.2, 0.2]).row()
    assert list(row) == RESULTS
    assert (row["mean"], row["low"], row["high"], row["claim"], row["verdict"]) == (
        pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.2), "", "",
    )  # fmt: skip
    assert math.isnan(Finding("a", "accuracy", 0.9).row()["low"])


@pytest.mark.parametrize(
    ("interval", "level", "expected", "verdict"),
    [
        (UP, 0, "above", "holds"), (UP, 0, "below", "fails"), (UP, 0.4, "above", "open"),
        (UP, 0.6, "above", "fails"), (UP, 0.6, "below", "holds"), (DOWN, 0, "below", "holds"),
        (OPEN, 0, "above", "open"), (UP, 0.3, "above", "open"),
        (MeanInterval(1.0, math.nan, math.nan), 0, "above", "open"),
    ],
)  # fmt: skip
def test_a_claim_is_decided_by_the_whole_interval(interval, level, expected, verdict):
    assert decide(interval, float(level), expected) == verdict
    row = Finding("a", "x", interval, "segmentation", ("a rival", float(level)), expected).row()
    assert (row["verdict"], row["rival value"]) == (verdict, level)


def test_rows_of_the_same_are_refused_and_claims_must_be_known():
    with pytest.raises(ValueError, match=r"two findings are of \('a', 'x'\)"):
        results_frame([Finding("a", "x", 1.0), Finding("a", "x", 2.0)])
    with pytest.raises(ValueError, match="did you mean 'segmentation'"):
        results_frame([Finding("a", "x", 1.0, claim="segmentatoin")])


def test_a_finding_without_values_has_no_row():
    assert len(results_frame([Finding("a", "x", []), Finding("a", "y", [1.0, 2.0])])) == 1


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (UP, "", "0.40 [0.30, 0.50]"),
        (MeanInterval(0.1234, 0.1224, 0.1244), "", "0.1234 [0.1224, 0.1244]"),
        (MeanInterval(123.4, 100.0, 150.0), "", "123 [100, 150]"),
        (UP, ".0%", "40% [30%, 50%]"),
        (MeanInterval(0.12345, math.nan, math.nan), "", "0.123"),
        (UP, "rises|falls|stays", "rises"),
        (DOWN, "rises|falls|stays", "falls"),
        (OPEN, "rises|falls|stays", "stays"),
    ],
)
def test_a_number_in_a_sentence(number, form, text):
    assert format(Number(*number), form) == text


def test_sentences_take_their_numbers_and_names():
    found = subjects(Finding("a", "IoU", UP), Finding("b", "IoU", DOWN))
    written = write_sentences(
        ["{main} {main[IoU]:rises|falls|stays} at layer {main.layer}.", "{by[b][IoU].mean:.1f}"],
        found,
    )
    assert written == ["`a` rises at layer 5.", "-0.4"]


def test_a_sentence_without_its_numbers_is_left_out():
    found = subjects(Finding("a", "IoU", UP), Finding("a", "gain", []))
    assert write_sentences(["{other} too.", "{main[gain]}.", "{main}."], found) == ["`a`."]


def test_a_misspelt_quantity_or_subject_is_an_error():
    found = subjects(Finding("a", "IoU", UP))
    with pytest.raises(KeyError, match="did you mean 'IoU'"):
        write_sentences(["{main[IoUs]}"], found)
    with pytest.raises(KeyError, match="not 'mian'"):
        write_sentences(["{mian}"], found)


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert f"{Number(-0.0004, -0.16, 0.15)}" == "0.00 [-0.16, 0.15]"


def test_the_table_has_a_line_a_quantity_and_a_column_a_model():
    rows = [
        Finding("a", "IoU", UP, "segmentation", ("mean", 0.2), paper="23.9"),
        Finding("b", "IoU", DOWN),
        Finding("a", "gain", OPEN),
    ]
    assert markdown_table(results_frame(rows)).replace("\N{NO-BREAK SPACE}", " ").splitlines() == [
        "| mean [95 % interval] | `a` | `b` | the paper's |",
        "| --- | ---: | ---: | ---: |",
        "| IoU | 0.40 [0.30, 0.50] (holds against mean, 0.200) | -0.40 [-0.50, -0.30] | 23.9 |",
        "| gain | 0.10 [-0.10, 0.30] |  |  |",
    ]


def test_the_table_has_a_line_a_model_where_there_are_more_of_them():
    rows = [Finding("a", "IoU", UP, paper="23.9"), Finding("b", "IoU", DOWN)]
    assert markdown_table(results_frame(rows)).replace("\N{NO-BREAK SPACE}", " ").splitlines() == [
        "| mean [95 % interval] | IoU |",
        "| --- | ---: |",
        "| `a` | 0.40 [0.30, 0.50] |",
        "| `b` | -0.40 [-0.50, -0.30] |",
        "| the paper's | 23.9 |",
    ]


def test_an_interval_in_the_table_stays_on_its_line():
    assert "0.40 [0.30,\N{NO-BREAK SPACE}0.50]" in markdown_table(
        results_frame([Finding("a", "IoU", UP)])
    )


def test_the_rows_survive_the_file():
    frame = results_frame([Finding("a", "x", UP, "segmentation")])
    text = frame.to_csv(index=False)
    assert text.splitlines()[0] == ",".join(RESULTS)
    assert pd.read_csv(pd.io.common.StringIO(text)).iloc[0]["verdict"] == "holds"


def test_a_rival_that_this_run_has_not_leaves_its_sentence_out_and_a_slip_is_told():
    frame = results_frame([Finding("mean mask", "IoU", 0.4)])
    by = ByName({"mean mask": Subject("mean mask", frame, ["IoU"])})
    known = Subjects(main=by["mean mask"], by=by)
    sentences = ["{by[mean mask][IoU].mean}.", "{by[k-means masks][IoU].mean}."]
    assert write_sentences(sentences, known) == ["0.4."]
    with pytest.raises(KeyError, match="no finding is of 'mean masks'; did you mean 'mean mask'"):
        write_sentences(["{by[mean masks][IoU].mean}."], known)
