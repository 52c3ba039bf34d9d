"""The book's experiments in small: trained, measured, and read back as one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crate_analysis.training import measured as module
from crate_analysis.training.__main__ import main
from crate_analysis.training.experiments import Experiment, read_experiment, run_experiment
from crate_analysis.training.measured import (
    COLUMNS,
    MEASURED,
    Criterion,
    by_seed,
    criteria_frame,
    each_run,
    gate_criteria,
    measure_experiment,
    measured,
)

FOLDER = Path(__file__).resolve().parents[2] / "params" / "experiments"
FILES = sorted(FOLDER.glob("*.yml"))
TINY = {"dim": 8, "depth": 2, "heads": 2}
QUANTITIES = {
    "halves": {"accuracy", "image-specific IoU", "MaskCut's mean best IoU"},
    "labels": {"accuracy, shuffled", "ears: AP", "muzzle: AP less the prior"},
    "self-supervision": {"neighbours' accuracy", "neighbours' accuracy of raw pixels",
                         "image-specific IoU"},
    "sparsity": {"non-zero share", "non-zero share before training", "dictionary's change",
                 "image-specific IoU", "accuracy"},
    "when": {"image-specific IoU"},
}  # fmt: skip


def small(experiment: Experiment) -> Experiment:
    """The same cells and measures, of tiny networks that see a few images once, with one seed."""

    def cut(settings):
        sizes = {"epochs": 1, "n_train": 24, "n_val": 8, "batch_size": 8, "precision": "fp32"}
        kept = {name: value for name, value in settings.items() if name not in (*sizes, "start")}
        return {**kept, "overrides": {**settings.get("overrides", {}), **TINY}}

    common = {**cut(experiment.common), "epochs": 1, "n_train": 24, "n_val": 8, "batch_size": 8}
    cells = {name: cut(settings) for name, settings in experiment.cells.items()}
    return replace(experiment, common=common, cells=cells, seeds=(0,), search=None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture
def few(monkeypatch):
    for name in ("N_ASKED", "N_VOTING", "N_EDITED"):
        monkeypatch.setattr(module, name, 24)
    monkeypatch.setattr(module, "N_SCENES", 4)
    monkeypatch.setattr("crate_analysis.training.gate.KNOWN", 24)
    monkeypatch.setattr("crate_analysis.training.gate.REPORTED_IMAGES", 8)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_of_the_book_runs_in_small_and_measures_what_it_declared(
    path, few, cache, tmp_path
):
    experiment = small(read_experiment(path))
    trained = run_experiment(experiment, tmp_path, cache, jobs=2)
    assert (trained.state == "finished").all()
    table = measure_experiment(experiment, tmp_path, cache, n_images=24)
    assert list(table) == COLUMNS
    assert set(table.cell) == set(experiment.cells) and set(table.seed) == {0}
    last = table[table.step == table.step.max()]
    for cell in experiment.cells:
        missing = QUANTITIES[path.stem] - set(last[last.cell == cell].quantity)
        assert not missing, f"{cell}: {missing}"
        costs = "tail: lost in its question" in set(last[last.cell == cell].quantity)
        assert costs == cell.endswith("-parts"), "only classes made of parts ask about a tail"
    shown = table.dropna()
    assert ((shown.low <= shown["mean"] + 1e-9) & (shown["mean"] <= shown.high + 1e-9)).all()
    assert (table.step.nunique() > 2) == experiment.along
    again = measure_experiment(experiment, tmp_path, cache, n_images=24)
    pd.testing.assert_frame_equal(table, again)


FILE = """
question: Does it run?
declared: {number: accuracy, success: all runs end}
measure: [accuracy, sparsity]
common:
  arch: crate_micro_patch6_72.creatures
  overrides: {dim: 8, depth: 1, heads: 1, patch_size: 36}
  n_train: 16
  n_val: 8
  batch_size: 8
  epochs: 2
cells: {mssa: {}, mlp: {overrides: {nonlinearity: mlp}}}
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def runs(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "small.yml"
    file.write_text(FILE)
    run_experiment(read_experiment(file), folder / "runs", cache, jobs=2)
    return file, folder / "runs"


def test_the_command_writes_the_table_and_a_copy(runs, cache, few, tmp_path, capsys):
    file, folder = runs
    options = ["--cache", str(cache), "--images", "12", "--table", str(tmp_path / "copy.csv")]
    main(["measure", str(file), str(folder), *options])
    assert "non-zero share" in capsys.readouterr().out
    table = measured(str(tmp_path / "copy.csv"))
    assert (folder / "measured.csv").read_bytes() == (tmp_path / "copy.csv").read_bytes()
    assert by_seed(table, "mssa", "accuracy").index.tolist() == [0, 1]
    assert by_seed(table, "mlp", "non-zero share").empty  # an MLP has no sparse code
    assert by_seed(table, "vit", "accuracy").empty
    share = by_seed(table, "mssa", "non-zero share")
    change = share - by_seed(table, "mssa", "non-zero share before training")
    told = by_seed(table, "mssa", "non-zero share, training's change")
    assert change.to_numpy() == pytest.approx(told.to_numpy(), abs=1e-3)


def test_only_runs_above_the_gate_count():
    rows = [
        ("a", 0, 10, "accuracy", 0.9), ("a", 0, 10, "IoU", 0.5),
        ("a", 1, 5, "accuracy", 0.9), ("a", 1, 10, "accuracy", 0.8), ("a", 1, 10, "IoU", 0.7),
        ("b", 0, 10, "accuracy", 0.85), ("b", 0, 10, "IoU", 0.6),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["cell", "seed", "step", "quantity", "mean"])
    assert by_seed(table, "a", "IoU").to_dict() == {0: 0.5, 1: 0.7}
    assert by_seed(table, "a", "IoU", 0.85).to_dict() == {0: 0.5}  # by the last accuracy
    assert by_seed(table, "b", "IoU", 0.85).empty  # it must be above
    found = each_run(table, {"a": "A", "c": "C", "b": "B"}, "IoU", 0.85)
    told = [tuple(row) for row in found[["cell", "run", "value", "counts"]].to_numpy()]
    assert told == [("A", 0, 0.5, True), ("A", 1, 0.7, False), ("B", 0, 0.6, False)]
    assert by_seed(table, "a", "accuracy", 0.6, gated="IoU").to_dict() == {1: 0.8}
    other = each_run(table, {"a": "A"}, "accuracy", 0.6, gated="IoU")
    assert other.counts.tolist() == [False, True]
    gates = gate_criteria(table, {"a": "A", "b": "B", "c": "C"}, 0.75)
    assert gates == [
        ("A", "more than 75% right", "90.0%, 80.0%", True),
        ("B", "more than 75% right", "85.0%", True),
    ]
    assert [one.met for one in gate_criteria(table, {"a": "A", "b": "B"}, 0.85)] == [False, False]
    shown = criteria_frame(
        [*gates, Criterion("A", "more", "less", False), Criterion("A", "more", "", None)]
    )
    assert shown.met.tolist() == ["yes", "yes", "no", "open"]
    assert criteria_frame([]).columns.tolist() == ["of", "declared", "found", "met"]


def test_what_was_measured_is_read_and_what_changed_is_measured_again(
    runs, cache, few, monkeypatch
):
    file, folder = runs
    experiment = read_experiment(file)
    calls = []
    counted = {
        name: lambda subject, name=name, do=do: calls.append(name) or do(subject)
        for name, do in MEASURED.items()
    }
    monkeypatch.setattr(module, "MEASURED", counted)
    first = measure_experiment(experiment, folder, cache, n_images=10)
    assert len(calls) == 4 * 2
    calls.clear()
    assert measure_experiment(experiment, folder, cache, n_images=10).equals(first) and not calls
    (store,) = (folder / "mssa" / "seed-1" / "measured").glob("accuracy-*.json")
    store.write_text(store.read_text().replace("0", "1", 1))
    assert measure_experiment(experiment, folder, cache, n_images=10).equals(first)
    assert calls == ["accuracy"], "a damaged file is not believed"
    calls.clear()
    measure_experiment(experiment, folder, cache, n_images=11)
    assert len(calls) == 4 * 2, "other images are another request"


def test_runs_that_are_not_finished_are_left_out(runs, cache, tmp_path):
    file, _ = runs
    with pytest.raises(ValueError, match="holds no finished run of small; train some first"):
        measure_experiment(read_experiment(file), tmp_path, cache)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no table of runs"), ("a,b\n1,2\n", "has no column 'cell'"), ("", "no table of runs")],
)
def test_what_is_no_table_of_runs_is_named(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        measured(str(path))
    assert "runs.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_no_name_is_for_no_runs():
    table = measured("")
    assert list(table) == COLUMNS and by_seed(table, "crate", "IoU", gate=0.5).empty
    assert each_run(table, {"crate": "CRATE"}, "IoU", 0.5).empty


@pytest.mark.parametrize(
    "table", sorted((FOLDER.parents[1] / "data" / "experiments").glob("*.csv"))
)
def test_a_shipped_table_is_of_its_experiment(table):
    """Cells, seeds and quantities are those that the file declares."""
    experiment = read_experiment(FOLDER / f"{table.stem}.yml")
    found = measured(table.stem)
    assert set(found.cell) <= set(experiment.cells) and set(found.seed) <= set(experiment.seeds)
    for (cell, _), rows in found.groupby(["cell", "seed"]):
        assert rows.step.max() == experiment.recipe(cell).steps
        assert QUANTITIES[table.stem] <= set(rows.quantity), cell
        assert not rows.duplicated(["step", "quantity"]).any()
    shown = found.dropna()
    assert np.all(shown.low <= shown["mean"]) and np.all(shown["mean"] <= shown.high)
