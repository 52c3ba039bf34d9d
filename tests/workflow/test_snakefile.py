"""A grid of runs by one command: killed, failed, changed, and summed up."""

import csv
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PARAMETERS = "models = ['a']\ndataset = 'x'\nseed = 0\noutput = 'output'\nfactor: float = 1"
BODY = """
import os, pathlib, time
with open("begun.log", "a") as log:
    log.write(f"NAME {models[0]} {dataset}\\n")
time.sleep(1.5 if os.path.exists("slow") else 0)
if os.path.exists("broken") and "NAME" == "n3" and (models[0], dataset) == ("m2", "d2"):
    raise RuntimeError("the cluster hiccups")
folder = pathlib.Path(output)
folder.mkdir(parents=True, exist_ok=True)
value = factor * (len("NAME") + int(models[0][1]) / 10)
text = f"model,quantity,mean,low,high\\n{models[0]},size,{value},{value - 0.01},{value + 0.01}\\n"
(folder / "NAME-results.csv").write_text(text)
"""


@pytest.fixture
def folder(tmp_path):
    """Three notebooks that need no library, and a grid of them: 2 models x 2 data sets x 3."""
    for name in ("n1", "n2", "n3"):
        note = nbformat.v4.new_notebook()
        note.metadata.kernelspec = {
            "name": "python3", "display_name": "Python 3", "language": "python",
        }  # fmt: skip
        sources = (PARAMETERS, BODY.replace("NAME", name))
        note.cells = [nbformat.v4.new_code_cell(source) for source in sources]
        note.cells[0].metadata.tags = ["parameters"]
        nbformat.write(note, tmp_path / f"{name}.ipynb")
    describe(tmp_path)
    return tmp_path


def describe(folder, factor=1, notebooks=("n1", "n2", "n3")):
    described = {f"{name}.ipynb": {"factor": factor if name == "n1" else 1} for name in notebooks}
    grid = {"models": ["m1", "m2"], "datasets": ["d1", "d2"], "seeds": [0], "notebooks": described}
    (folder / "mine.yml").write_text(json.dumps(grid))


def command(folder, target):
    where = ["-s", ROOT / "workflow" / "Snakefile", "--directory", folder, "--cores", "2"]
    return [SNAKEMAKE, *where, target, "--config", "grid=mine.yml"]


def run(folder, target="cells"):
    return subprocess.run(command(folder, target), capture_output=True, text=True, timeout=600)


def finished(folder):
    """When each finished run was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("results/mine/*/*/*/*/run.ipynb")}


def begun(folder):
    """Which runs were begun since this was last asked."""
    log = folder / "begun.log"
    lines = sorted(log.read_text().splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_killed_in_the_middle_it_goes_on_without_repeating_what_is_done(folder):
    (folder / "slow").touch()
    process = subprocess.Popen(
        command(folder, "cells"),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 300
        while len(finished(folder)) < 5:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (folder / "slow").unlink()
    # two run at a time, so the last two may have been written and not yet noted as done
    done = sorted(finished(folder).items(), key=lambda item: item[1])[:-2]
    assert 3 <= len(done) < 10
    first = begun(folder)

    again = run(folder)
    assert again.returncode == 0, again.stderr
    assert len(finished(folder)) == 12
    assert finished(folder).items() >= set(done), "what was done was left alone"
    second = begun(folder)
    assert len(second) <= 12 - len(done)
    assert len({*first, *second}) == 12
    assert not list(folder.rglob(".*running*")), "nothing is left of what was killed"

    assert run(folder).returncode == 0
    assert begun(folder) == [], "with nothing changed there is nothing to do"


def test_a_failed_run_takes_no_other_with_it_and_only_what_changed_runs_again(folder):
    describe(folder, notebooks=("n1", "n3"))
    (folder / "broken").touch()
    failed = run(folder)
    assert failed.returncode != 0
    assert "the cluster hiccups" in failed.stderr
    state = r"^\[\d of 8 done, \d running\] results/mine/n3/m2/d2/seed-0: "
    for what in ("failed after .*: the cluster hiccups$", "once more$"):
        assert re.search(state + what, failed.stderr, re.MULTILINE)
    where = "results/mine/n3/m2/d2/seed-0"
    *_, counted, reason = failed.stderr.strip().splitlines()
    assert counted == "--- 1 of 8 failed:"
    assert reason == (
        f"{where}: n3.ipynb: RuntimeError: the cluster hiccups (log: {where}/log.txt)"
    )
    assert len(finished(folder)) == 7
    assert begun(folder).count("n3 m2 d2") == 2, "it was tried once more"

    summary = run(folder, "summary")
    assert summary.returncode == 0, summary.stderr
    page = (folder / "results/mine/html/index.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "7 of 8 runs" in text
    assert "missing: n3.ipynb: RuntimeError: the cluster hiccups" in text
    links = re.findall(r'href="(\.\./[^"]*)"', page)
    assert len([link for link in links if link.endswith("run.ipynb")]) == 7
    assert f"../{where.removeprefix('results/mine/')}/log.txt" in links
    for link in links:
        assert (folder / "results/mine/html" / link).exists()
    # n1 has both models on both data sets; n3 lacks one, and is not counted among the whole
    assert "1 quantities were measured for both m1 and m2 in 2 settings" in text

    (folder / "broken").unlink()
    assert run(folder).returncode == 0
    assert begun(folder) == ["n3 m2 d2"]
    describe(folder, factor=2, notebooks=("n1", "n3"))
    assert run(folder).returncode == 0
    assert begun(folder) == ["n1 m1 d1", "n1 m1 d2", "n1 m2 d1", "n1 m2 d2"]


def test_a_wrong_grid_is_told_before_anything_runs(folder):
    (folder / "mine.yml").write_text("models: [m1]\ndatasets: [d1]\nseeds: [0]\nnotebook: n1\n")
    refused = run(folder)
    assert refused.returncode != 0
    assert "mine.yml: key 'notebook' is unknown: did you mean 'notebooks'?" in refused.stderr
    assert begun(folder) == []


EVIL = "<img src=x onerror=alert({})>"
TWO = """
import pathlib
if dataset.startswith("bad"):
    raise RuntimeError("<img src=x onerror=alert(1)> hiccups")
folder = pathlib.Path(output)
folder.mkdir(parents=True, exist_ok=True)
rows = "".join(f"\\"{name.split('=')[0]}\\",size,{factor},{factor},{factor}\\n" for name in models)
text = "model,quantity,mean,low,high\\n" + rows
(folder / (pathlib.Path(NAME).stem + "-results.csv")).write_text(text)
"""


def test_names_of_any_kind_are_names_and_nothing_else(folder):
    name = "n 1+(x) {y} $z '#.ipynb"
    place = folder / "a (b) {c}"
    place.mkdir()
    note = nbformat.read(folder / "n1.ipynb", as_version=4)
    note.cells[1].source = TWO.replace("NAME", repr(name))
    nbformat.write(note, place / name)
    for model in ("x y", "<b>"):
        (folder / model).mkdir()
        (folder / model / "model.safetensors").touch()
    results = f"res (1)+ $x 'q' #/{EVIL.format(3)}"
    pair = ["one, two=x y/model.safetensors", "<b>/model.safetensors"]
    grid = {
        "models": ["x y/model.safetensors", pair],
        "datasets": [f"good:{EVIL.format(2)}", "bad: #"],
        "seeds": [0],
        "notebooks": {f"{place.name}/{name}": {"factor": 1e-5}},
        "folder": results,
    }
    (folder / "my grid #1.yml").write_text(json.dumps(grid))
    code = "import grid, sys; from pathlib import Path; "
    code += "sys.exit(grid.snakemake(sys.argv[1], Path(sys.argv[2])))"
    made = {}
    for target in ("cells", "summary"):
        command = [sys.executable, "-c", code, target, "my grid #1.yml"]
        variables = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
        options = {"cwd": folder, "env": variables, "capture_output": True, "text": True}
        made[target] = subprocess.run(command, **options)
    assert made["cells"].returncode != 0
    assert "--- 2 of 4 failed:" in made["cells"].stderr
    assert made["summary"].returncode == 0, made["summary"].stderr
    page = (folder / results / "html/index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(2)&gt;" in page
    assert "missing: " in page and "hiccups" in page
    links = re.findall(r'href="(\.\./[^"]*)"', page)
    assert len(links) == 4
    for link in links:
        assert (folder / results / "html" / unquote(html.unescape(link))).exists()
    with (folder / results / "results.csv").open(newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"x y", "one, two", "<b>"}


def make(folder, **changes):
    """What `make grid` runs."""
    grid = json.loads((folder / "mine.yml").read_text()) | {"models": ["crate-creatures"]} | changes
    (folder / "mine.yml").write_text(json.dumps(grid))
    command = [sys.executable, ROOT / "workflow" / "grid.py", "make", "mine.yml", "--cores", "2"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["crate-creature"]}, "did you mean 'crate-creatures'"),
        ({"models": ["runs/model.pth"]}, "runs/model.pth"),
        ({"models": ["begun.yml=mine.yml"]}, "mine.yml"),
        ({"datasets": ["creature"]}, "did you mean 'creatures'"),
        ({"datasets": ["folder:nowhere"]}, "nowhere"),
        ({"datasets": ["creatures"], "notebooks": {"n1.ipynb": {"factor": "x"}}}, "must be float"),
        ({"datasets": ["creatures"], "notebooks": {"n1.ipynb": {"factr": 1}}}, "mean 'factor'"),
    ],
)
def test_what_no_run_could_use_is_told_before_any_runs(folder, changes, message):
    refused = make(folder, **changes)
    assert refused.returncode != 0
    assert message in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert begun(folder) == []
