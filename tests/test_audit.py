"""The audit of the book's numbers runs, and what does not depend on images is as it was found."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "benchmarks" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["audit"]


@pytest.mark.slow
def test_a_table_of_claimed_and_measured_numbers(audit, tmp_path, monkeypatch, capsys):
    table = tmp_path / "audit.csv"
    given = ["audit.py", "dictionary", "parts", "--images", "6", "--output", str(table)]
    monkeypatch.setattr(sys, "argv", given)
    audit.main()
    frame = pd.read_csv(table).set_index("about")
    assert frame.columns.tolist() == ["section", "claimed", "measured"]
    assert len(capsys.readouterr().out.splitlines()) == len(frame)
    assert float(frame.measured["bits of the label in pattern and palette"]) == 3.418
    low, high = map(float, frame.measured["dictionary, cosine with its start"].split(" to "))
    assert 0.96 < low < high < 0.99


def test_an_unknown_section_is_named(audit, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["audit.py", "heads"])
    with pytest.raises(SystemExit, match="no section 'heads'; there are rivals, ablation"):
        audit.main()
