"""Where the shipped files lie."""

from __future__ import annotations

from pathlib import Path

import pytest

import crate_analysis
from crate_analysis import paths


def test_data_lies_beside_the_package(monkeypatch):
    monkeypatch.delenv("CRATE_ANALYSIS_DATA", raising=False)
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    assert paths.data_folder() == Path(crate_analysis.__file__).parents[1] / "data"


def test_the_variable_names_another_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path))
    assert paths.data_folder() == tmp_path


def test_a_folder_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CRATE_ANALYSIS_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"no data folder .*none \(named by CRATE_ANALYSIS"):
        paths.data_folder()
