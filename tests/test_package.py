"""The names that notebooks hold on to, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import crate_analysis
from crate_analysis import build_model, list_models, load_dataset, load_model


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some lines."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_the_agreed_names():
    names = {"build_model", "list_models", "load_dataset", "load_model"}
    assert set(crate_analysis.__all__) == names
    assert names | {"__version__"} <= set(dir(crate_analysis))
    for function in (build_model, list_models, load_dataset, load_model):
        assert callable(function) and function.__doc__
        assert getattr(crate_analysis, function.__name__) is function


def test_importing_brings_no_package_at_all():
    before = loaded_by("pass")
    assert {name.partition(".")[0] for name in loaded_by("import crate_analysis") - before} <= (
        {"crate_analysis"} | sys.stdlib_module_names
    )


def test_building_a_model_brings_no_plotting_and_no_optional_package():
    loaded = loaded_by("import crate_analysis; crate_analysis.build_model; crate_analysis.datasets")
    assert "torch" in loaded and "crate_analysis.models" in loaded
    assert not {"matplotlib", "seaborn", "sklearn", "pycocotools", "papermill"} & loaded


def test_submodules_are_there_when_asked_for():
    loaded = loaded_by("import crate_analysis; crate_analysis.paths.data_folder()")
    assert "crate_analysis.paths" in loaded and "torch" not in loaded


def test_names_that_are_not_there():
    for name in ("load_modle", "_load_model", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(crate_analysis, name)
        assert not hasattr(crate_analysis, name)
