"""The names that notebooks hold on to, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import crate_analysis
from crate_analysis import build_model, list_models, load_dataset, load_model


def test_the_agreed_names():
    names = {"build_model", "list_models", "load_dataset", "load_model"}
    assert set(crate_analysis.__all__) == names
    for function in (build_model, list_models, load_dataset, load_model):
        assert callable(function) and function.__doc__


def test_importing_brings_no_plotting_and_no_optional_package():
    code = "import sys, crate_analysis; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "crate_analysis" in loaded
    assert not {"matplotlib", "seaborn", "sklearn", "pycocotools", "papermill"} & set(loaded)
