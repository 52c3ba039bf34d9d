"""The two sides of a notebook: what was edited is kept, whatever the time stamps say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Title

# %%
x = 1
"""


@pytest.fixture
def folder(tmp_path):
    """One pair in step, its state known."""
    shutil.copy(ROOT / "notebooks" / "jupytext.toml", tmp_path)
    (tmp_path / "a.py").write_text(TEXT)
    assert sync(tmp_path).returncode == 0
    assert (tmp_path / "a.ipynb").exists()
    return tmp_path


def sync(folder):
    command = [sys.executable, ROOT / "workflow/sync.py", folder, folder / "state/pairs.json"]
    return subprocess.run(command, capture_output=True, text=True)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def touch(path, seconds):
    """A time stamp this much later than now."""
    time = os.stat(path).st_mtime + seconds
    os.utime(path, (time, time))


def both(folder):
    """What the cells of either side say."""
    cells = json.loads((folder / "a.ipynb").read_text())["cells"]
    return "".join("".join(cell["source"]) for cell in cells), (folder / "a.py").read_text()


def git(folder, *words):
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", folder, *name, *words], check=True, capture_output=True)


@pytest.mark.parametrize("edited", ["a.py", "a.ipynb"])
@pytest.mark.parametrize("seconds", [-1000, 1000])
@pytest.mark.parametrize("known", ["the state", "a commit"])
def test_an_edit_is_kept_whatever_the_time_stamps(folder, edited, seconds, known):
    if known == "a commit":
        git(folder, "init")
        git(folder, "add", "a.py", "a.ipynb")
        git(folder, "commit", "-m", "x")
        shutil.rmtree(folder / "state")
    edit(folder / edited, "x = 1", "x = 2")
    touch(folder / ("a.ipynb" if edited == "a.py" else "a.py"), seconds)
    done = sync(folder)
    assert done.returncode == 0, done.stderr
    assert all("x = 2" in side for side in both(folder))


def test_an_edit_after_a_pull_is_kept(folder):
    git(folder, "init")
    for side in ("a.py", "a.ipynb"):  # a pull changes both since they were known to agree
        edit(folder / side, "# Title", "# Pulled")
    git(folder, "add", "a.py", "a.ipynb")
    git(folder, "commit", "-m", "x")
    edit(folder / "a.py", "x = 1", "x = 2")
    touch(folder / "a.ipynb", 1000)
    done = sync(folder)
    assert done.returncode == 0, done.stderr
    assert all("x = 2" in side and "Pulled" in side for side in both(folder))


def test_two_edits_are_an_error_that_names_both_and_loses_neither(folder):
    edit(folder / "a.py", "x = 1", "x = 2")
    edit(folder / "a.ipynb", "x = 1", "x = 3")
    before = both(folder)
    for _ in range(2):
        done = sync(folder)
        assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
        assert str(folder / "a.py") in done.stderr and str(folder / "a.ipynb") in done.stderr
        assert both(folder) == before
    (folder / "a.ipynb").unlink()  # the remedy that it names
    assert sync(folder).returncode == 0
    assert all("x = 2" in side for side in both(folder))


def test_the_same_edit_on_both_sides_is_none(folder):
    for side in ("a.py", "a.ipynb"):
        edit(folder / side, "x = 1", "x = 2")
    assert sync(folder).returncode == 0


def test_a_conflict_that_git_left_is_named(folder):
    edit(folder / "a.py", "x = 1", "<<<<<<< ours\nx = 1")
    done = sync(folder)
    assert done.returncode != 0 and "a.py holds a conflict" in done.stderr
    assert "<<<<<<<" not in both(folder)[0]


def test_a_damaged_side_is_named_with_the_remedy(folder):
    (folder / "a.ipynb").write_text((folder / "a.ipynb").read_text()[:-30])
    done = sync(folder)
    assert done.returncode != 0 and "a.ipynb cannot be read" in done.stderr
    (folder / "a.ipynb").unlink()
    assert sync(folder).returncode == 0


def test_one_notebook_in_conflict_does_not_stop_the_others(folder):
    (folder / "b.py").write_text(TEXT)
    edit(folder / "a.py", "x = 1", "x = 2")
    edit(folder / "a.ipynb", "x = 1", "x = 3")
    assert sync(folder).returncode != 0
    assert (folder / "b.ipynb").exists()


def test_outputs_are_no_edit(folder):
    notebook = json.loads((folder / "a.ipynb").read_text())
    notebook["cells"][1] |= {"execution_count": 3, "outputs": [
        {"output_type": "stream", "name": "stdout", "text": "1"}
    ]}  # fmt: skip
    (folder / "a.ipynb").write_text(json.dumps(notebook))
    edit(folder / "a.py", "x = 1", "x = 2")
    done = sync(folder)
    assert done.returncode == 0, done.stderr
    assert all("x = 2" in side for side in both(folder))


def test_windows_line_ends_are_no_edit(folder):
    content = (folder / "a.py").read_bytes()
    (folder / "a.py").write_bytes(content.replace(b"\n", b"\r\n"))
    edit(folder / "a.ipynb", "x = 1", "x = 2")
    done = sync(folder)
    assert done.returncode == 0, done.stderr
    assert all("x = 2" in side for side in both(folder))
