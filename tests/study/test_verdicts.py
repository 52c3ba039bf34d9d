"""Verdicts by the declared rule, and results read back from folders of runs."""

import pandas as pd
import pytest

from crate_analysis.measures import MeanInterval
from crate_analysis.study import RESULTS, Finding
from crate_analysis.study.claims import CLAIMS
from crate_analysis.study.findings import results_frame
from crate_analysis.study.verdicts import (
    claims_table,
    findings_table,
    judge,
    read_results,
    verdict,
)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "open"], "holds in part"),
        (["holds", "fails"], "holds in part"),
        (["fails", "open"], "not here"),
        (["fails"], "not here"),
        (["open", "open"], "cannot be told here"),
        ([], "not measured in this run"),
    ],
)
def test_a_verdict_follows_the_rule(findings, expected):
    assert verdict(findings) == expected


@pytest.fixture
def folder(tmp_path):
    """Two chapters' results, the first in two runs."""
    above, below, about = (MeanInterval(m, m - 0.1, m + 0.1) for m in (0.3, -0.3, 0.0))
    runs = {
        ("one", "07-segmentation"): [
            Finding("a", "gain", above, "segmentation"),
            Finding("a", "x", 1.0),
        ],
        ("two", "07-segmentation"): [Finding("<b>", "gain", about, "segmentation")],
        ("two", "14-ablation"): [
            Finding("the design", "ISTA", below, "ista", paper="+1.9"),
            Finding("the design", "level", above, "mssa", ("mean mask", 0.35)),
        ],
    }
    for (run, chapter), findings in runs.items():
        place = tmp_path / run
        place.mkdir(exist_ok=True)
        results_frame(findings).to_csv(place / f"{chapter}-results.csv", index=False)
    return tmp_path


def test_results_are_read_with_their_chapter_and_run(folder):
    found = read_results(folder)
    assert list(found) == ["chapter", "run", *RESULTS] and len(found) == 5
    assert set(found.run) == {"one", "two"} and found.claim.tolist().count("") == 1


def test_claims_are_judged_over_all_runs(folder):
    verdicts = judge(read_results(folder)).set_index("claim").verdict
    assert verdicts["segmentation"] == "holds in part"  # one run holds, the other is open
    assert verdicts["ista"] == "not here" and verdicts["mssa"] == "cannot be told here"
    assert verdicts["noise"] == "not measured in this run"
    assert list(verdicts.index) == list(CLAIMS)


def test_results_without_claims_are_read_and_decide_none(tmp_path):
    (tmp_path / "x-results.csv").write_text("model,quantity,mean,low,high\na,b,1,0,2\n")
    found = read_results(tmp_path)
    assert found.claim.tolist() == [""] and found["mean"].tolist() == [1]
    assert set(judge(found).verdict) == {"not measured in this run"}


def test_tables_for_the_page(folder):
    found = read_results(folder)
    shown = findings_table(found)
    assert shown.claim.tolist() == ["segmentation", "segmentation", "mssa", "ista"]
    assert shown.beside.tolist() == ["0", "0", "mean mask: 0.35", "0"]
    assert list(claims_table(judge(found))) == [
        "claim", "source", "the paper's", "here", "chapter",
    ]  # fmt: skip


def test_what_cannot_be_judged_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results below .*: run a chapter"):
        read_results(tmp_path)
    rows = pd.DataFrame({"claim": ["no-such"], "verdict": ["holds"]})
    with pytest.raises(ValueError, match="no claim is called 'no-such'; there are compression"):
        judge(rows)
