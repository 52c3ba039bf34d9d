"""The environment that `make` creates: it is this clone's, wherever it lies and whatever is set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# A package that installs without a network: its build backend needs nothing but Python.
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "crate-analysis"
version = "1"
"""
BACKEND = """
import os, pathlib, zipfile
INFO = "crate_analysis-1.dist-info/"
def get_requires_for_build_editable(settings=None):
    return []
def build_editable(folder, settings=None, metadata=None):
    name = "crate_analysis-1-py3-none-any.whl"
    metadata = ["Metadata-Version: 2.1", "Name: crate-analysis", "Version: 1"]
    metadata += ["Provides-Extra: book", "Provides-Extra: test"]
    tags = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        # in ASCII, as setuptools does: Python reads these files in the locale's encoding
        wheel.writestr("clone.pth", f"import sys; sys.path.append({ascii(os.getcwd())})")
        wheel.writestr(INFO + "METADATA", "\\n".join(metadata))
        wheel.writestr(INFO + "WHEEL", "\\n".join(tags))
        wheel.writestr(INFO + "entry_points.txt", "[console_scripts]\\nwhere = where:main")
        wheel.writestr(INFO + "RECORD", "")
    return name
"""
WHERE = "import sys\ndef main(): print(__file__, sys.prefix, sep='\\n')\n"


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "one clone"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "where.py").write_text(WHERE)
    (folder / "constraints.txt").touch()
    return folder


def make(folder, *words, **variables):
    done = subprocess.run(
        ["make", "-C", folder, *words], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_is_of(folder):
    said = subprocess.run([folder / ".venv/bin/where"], capture_output=True, text=True)
    assert said.stdout.split("\n")[:2] == [str(folder / "where.py"), str(folder / ".venv")], said


def test_an_environment_is_of_the_clone_that_it_lies_in(clone, tmp_path):
    assert "Installing" in make(clone, "env")
    assert_is_of(clone)
    assert "Installing" not in make(clone, "env"), "with nothing changed there is nothing to do"

    copy = tmp_path / "ein Zweitstück"
    shutil.copytree(clone, copy, symlinks=True)
    assert "Installing" in make(copy, "env")
    assert_is_of(copy)
    assert_is_of(clone)
    assert "Installing" not in make(clone, "env")

    moved = tmp_path / "moved"
    copy.rename(moved)
    assert "Installing" in make(moved, "env")
    assert_is_of(moved)
    assert "Installing" not in make(moved, "env")


def test_another_or_a_vanished_python_makes_it_anew(clone):
    make(clone, "env")
    (clone / ".venv/bin/python").unlink()
    (clone / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    assert "Installing" in make(clone, "env")
    assert_is_of(clone)

    version = next((clone / ".venv/lib").iterdir())  # an upgrade leaves what was installed behind
    version.rename(version.with_name("python3.10"))
    made = clone / ".venv/.made"
    made.write_text("of another Python")
    assert "Installing" in make(clone, "env")
    assert_is_of(clone)
    assert [path.name for path in (clone / ".venv/lib").iterdir()] == [version.name]


def test_what_stands_in_the_environment_changes_no_installation(clone, tmp_path):
    evil = tmp_path / "evil"
    evil.mkdir()
    for name in ("where", "pip", "venv"):
        (evil / f"{name}.py").write_text("raise SystemExit('the wrong code')")
    names = (
        "PYTHONPATH", "PYTHONUSERBASE", "PYTHONSTARTUP", "PIP_TARGET", "PIP_PREFIX", "VENV", "GRID",
        "PIP_CONSTRAINT", "VIRTUAL_ENV", "CONDA_PREFIX", "BIN", "STAMP", "MADE", "ANEW", "STATE",
    )  # fmt: skip
    flags = {
        "PYTHONWARNINGS": "error", "PYTHONHOME": "/nowhere", "PYTHONNOUSERSITE": "", "PYTHON": "no",
        "PIP_USER": "1", "PIP_NO_DEPS": "1", "PIP_DRY_RUN": "1", "PIP_REQUIRE_HASHES": "1",
        "LC_ALL": "C", "HOME": "/dev/null/home",
    }  # fmt: skip
    make(clone, "env", **flags, **dict.fromkeys(names, str(evil)))
    assert_is_of(clone)
    assert sorted(path.name for path in evil.iterdir()) == ["pip.py", "venv.py", "where.py"]


def test_folders_that_it_did_not_make_are_not_emptied(clone, tmp_path):
    mine = tmp_path / "mine"
    subprocess.run([sys.executable, "-m", "venv", mine], check=True)
    (mine / "letter.txt").write_text("dear")
    make(clone, "env", f"VENV={mine}", "ANEW=", "MADE=")
    make(clone, "env", f"VENV={mine}")
    assert (mine / "letter.txt").read_text() == "dear"
