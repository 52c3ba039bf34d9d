"""An experiment as one file and one batch: resumed after a kill, in parts, with a table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from crate_analysis.training import experiments
from crate_analysis.training.__main__ import main
from crate_analysis.training.experiments import (
    outcome,
    read_experiment,
    run_experiment,
    write_table,
)
from crate_analysis.training.loop import FINISHED, claimed, is_training

PARAMS = Path(__file__).resolve().parents[2] / "params" / "experiments"
FILE = """
question: Does it run?
declared: {number: accuracy, success: all runs end}
common:
  arch: crate_micro_patch6_72.creatures
  overrides: {dim: 8, depth: 1, heads: 1, patch_size: 36}
  n_train: 16
  n_val: 8
  batch_size: 8
  epochs: 2
cells:
  mssa: {}
  mhsa: {overrides: {attention: mhsa}}
seeds: [0, 1]
search: {values: [1e-3, 1e-2], settings: {epochs: 1}}
"""
PLAIN = FILE.replace("search:", "# search:")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "small.yml"
    path.write_text(text)
    return path


def weights(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("model.safetensors")
    }


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    file = written(folder)
    main(["experiment", str(file), str(folder / "runs"), "--cache", str(cache), "--jobs", "2"])
    return folder / "runs"


def test_every_run_ends_and_is_in_the_table(finished):
    table = pd.read_csv(finished / "runs.csv")
    assert (table.state == "finished").all()
    mains = table[~table.searched]
    assert mains.run.tolist() == ["mssa/seed-0", "mhsa/seed-0", "mssa/seed-1", "mhsa/seed-1"]
    assert len(table) == 4 + 4 and table.dev_accuracy.notna().all()
    assert (mains.steps == 4).all() and (table[table.searched].steps == 2).all()
    for cell, found in table[table.searched].groupby("cell"):
        best = found.learning_rate[found.dev_accuracy.idxmax()]
        assert (mains[mains.cell == cell].learning_rate == best).all()


def test_what_is_finished_is_not_run_again(finished, cache):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}
    again = run_experiment(read_experiment(written(finished.parent)), finished, cache)
    assert (again.state == "finished").all()
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_parts_add_up_to_the_whole(finished, cache, tmp_path):
    """Two shards one after the other; the first leaves open what waits for the other's search."""
    experiment = read_experiment(written(tmp_path))
    folder = tmp_path / "runs"
    table = run_experiment(experiment, folder, cache, jobs=2, shard=(1, 2))
    assert set(table.state) == {"finished", "open"}
    run_experiment(experiment, folder, cache, jobs=2, shard=(2, 2))
    run_experiment(experiment, folder, cache, jobs=2, shard=(1, 2))
    assert weights(folder) == weights(finished)
    for shard in ((0, 2), (3, 2)):
        with pytest.raises(ValueError, match="shard"):
            run_experiment(experiment, folder, cache, shard=shard)


def test_a_cell_takes_the_value_that_anothers_search_found(finished, cache, tmp_path):
    text = FILE.replace("settings: {", "like: {mhsa: mssa}, settings: {")
    table = run_experiment(read_experiment(written(tmp_path, text)), tmp_path / "runs", cache)
    assert set(table[table.searched].cell) == {"mssa"}
    first = pd.read_csv(finished / "runs.csv")
    best = first[(first.cell == "mssa") & ~first.searched].learning_rate.iloc[0]
    assert (table[~table.searched].learning_rate == best).all()


@pytest.mark.skipif(os.name != "posix", reason="kills with a signal")
def test_a_killed_batch_takes_its_runs_along(cache, tmp_path):
    long = PLAIN.replace("epochs: 2", "epochs: 400")
    file, folder = written(tmp_path, long), tmp_path / "runs"
    command = [sys.executable, "-m", "crate_analysis.training", "experiment", str(file)]
    options = ["--cache", str(cache), "--jobs", "1", "--save-every", "1"]
    process = subprocess.Popen([*command, str(folder), *options], stderr=subprocess.DEVNULL)
    checkpoint = folder / "mssa" / "seed-0" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    experiment = read_experiment(file)
    while "training" in set(outcome(experiment, folder).state):
        assert time.monotonic() < deadline, "its run goes on without it"
        time.sleep(0.2)
    states = outcome(experiment, folder).set_index("run").state
    assert states["mssa/seed-0"] == "stopped" and states["mhsa/seed-1"] == "open"
    assert not weights(folder)


def test_a_run_that_fails_is_told_and_the_others_are_done(cache, tmp_path):
    file = written(tmp_path, PLAIN.replace("mhsa: {", "mhsa: {learning_rate: 1e30, "))
    with pytest.raises(SystemExit, match=r"mhsa/seed-0 failed: .*NaN.* see .*run\.log"):
        main(["experiment", str(file), str(tmp_path / "runs"), "--cache", str(cache)])
    table = pd.read_csv(tmp_path / "runs" / "runs.csv").set_index("run")
    assert (table.state[["mssa/seed-0", "mssa/seed-1"]] == "finished").all()
    assert table.state["mhsa/seed-0"].startswith("failed: ")


def test_what_another_process_trains_is_waited_for(cache, tmp_path):
    experiment = read_experiment(written(tmp_path, PLAIN))
    folder = tmp_path / "runs"
    with claimed(folder / "mssa" / "seed-0", experiment.recipe("mssa")):
        table = outcome(experiment, folder)
    assert table.set_index("run").state["mssa/seed-0"] == "training"


def test_a_second_batch_takes_other_runs(cache, tmp_path):
    """While another trains the first run, one job at a time does the rest, and then waits."""
    file = written(tmp_path, PLAIN)
    experiment = read_experiment(file)
    first, *others = experiment.runs(tmp_path / "runs")
    command = [sys.executable, "-m", "crate_analysis.training", "experiment", str(file)]
    command += [str(tmp_path / "runs"), "--cache", str(cache), "--jobs", "1"]
    with claimed(tmp_path / "runs" / first.name, first.recipe):
        batch = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 240
        while not all((tmp_path / "runs" / run.name / FINISHED).is_file() for run in others):
            assert batch.poll() is None and time.monotonic() < end
            time.sleep(0.2)
    assert batch.wait(timeout=120) == 0
    assert (tmp_path / "runs" / first.name / FINISHED).is_file()


def test_a_run_that_another_batch_began_at_the_same_moment_has_not_failed(
    cache, tmp_path, monkeypatch
):
    experiment = read_experiment(written(tmp_path, PLAIN))
    folder = tmp_path / "runs"
    first = experiment.runs(folder)[0]
    looked = []

    def too_early(where):
        looked.append(where)
        return len(looked) > 1 and is_training(where)

    with ExitStack() as other:
        other.enter_context(claimed(folder / first.name, first.recipe))
        monkeypatch.setattr(experiments, "is_training", too_early)

        def noted(*args):
            other.close()  # the other batch stops, when the first run has ended here
            return write_table(*args)

        monkeypatch.setattr(experiments, "write_table", noted)
        table = run_experiment(experiment, folder, cache, jobs=1)
    assert looked[0] == folder / first.name
    assert (table.state == "finished").all()
    assert "another process is training" in (folder / first.name / "run.log").read_text()


def test_status_starts_nothing(tmp_path, cache, capsys):
    file = written(tmp_path)
    main(["experiment", str(file), str(tmp_path / "runs"), "--status", "--cache", str(cache)])
    assert "open" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["runs.csv"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 2", "epoch: 2", r"cell mssa: a supervised recipe has no epoch"),
        ("epochs: 2", "epochs: 0", r"cell mssa: epochs=0 must be at least 1"),
        ("seeds: [0, 1]", "seeds: []", "at least one of each"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: 0 is given twice"),
        ("seeds: [0, 1]", "seeds: 3", "seeds"),
        ("cells:", "cell:", "the file has no cell;"),
        ("mssa: {}", "a/../b: {}", "'a/../b' cannot be a cell's name"),
        ("mssa: {}", "mssa: 3", "cell mssa"),
        ("values: [1e-3, 1e-2]", "values: []", "search: values"),
        ("values:", "value:", "search has no value;"),
        ("settings: {epochs: 1}", "settings: {epochs: -1}", "cell mssa: epochs=-1"),
        ("settings: {epochs: 1}", "like: 3", "search: like: write keys and values"),
        ("settings: {epochs: 1}", "like: {mssa: vit}", "like: mssa: vit must name a cell"),
        ("settings: {epochs: 1}", "like: {vit: mssa}", "like: vit: mssa must name a cell"),
        ("settings: {epochs: 1}", "like: {mssa: mhsa, mhsa: mssa}", "one that is searched"),
        ("question:", "objective: guessing\nquestion:", "there is no 'guessing'"),
        ("common:", "common: 3\nx:", "the file has no x;"),
        ("common:", "measure: maps\ncommon:", "measure: write a list of words"),
        ("common:", "measure: [guesses]\ncommon:", "measure: there is no 'guesses'"),
        ("common:", "along: often\ncommon:", "along: write true or false"),
        ("search: {", "search: 3\nx: {", "search: write keys and values"),
        ("seeds: [0, 1]", "seeds: [a, 1]", "seeds: write a list of numbers"),
        ("epochs: 2", "epochs: two", "cell mssa: epochs='two' must be a whole number"),
        ("epochs: 2", "epochs: 2.5", r"cell mssa: epochs=2\.5 must be a whole number"),
        ("epochs: 2", "flip: 1", "cell mssa: flip=1 must be true or false"),
        ("patch_size: 36", "patch_size: 35", "cell mssa: image_size=72 is not a multiple"),
        ("patch_size: 36", "patch: 35", "cell mssa: a model config has no field 'patch'"),
        ("attention: mhsa", "attention: no", "cell mhsa: attention='no' is not one of"),
        ("overrides: {dim: 8", "overrides: [3]\n  x: {dim: 8", "overrides: write keys and values"),
        (FILE, "", "it holds no keys"),
        (FILE, "a: [", "no valid YAML"),
        ("n_val: 8", "n_val: 8\n  n_val: 9", "given twice"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_line(unchecked, tmp_path, old, new, message):
    assert old in FILE
    with pytest.raises(ValueError, match=message) as caught:
        read_experiment(written(tmp_path, FILE.replace(old, new)))
    assert str(tmp_path / "small.yml") in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("small.yml")):
        read_experiment(tmp_path / "small.yml")
    with pytest.raises(ValueError, match="cannot be read"):
        read_experiment(tmp_path)
    (tmp_path / "small.yml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text in UTF-8"):
        read_experiment(tmp_path / "small.yml")


@pytest.mark.parametrize("path", sorted(PARAMS.glob("*.yml")), ids=lambda path: path.stem)
def test_the_files_of_the_book_are_valid_and_declare_their_success(path):
    experiment = read_experiment(path)
    assert {"number", "layer", "gate", "success"} <= set(experiment.declared)
    assert experiment.question.endswith(("?", "."))
    for cell in experiment.cells:
        assert experiment.recipe(cell).steps > 0
