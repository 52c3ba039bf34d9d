"""The description of a grid, and what is gathered of its runs."""

import csv
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from crate_analysis.specs import parse_spec

WORKFLOW = Path(__file__).parents[2] / "workflow"


CHAPTERS = {path.stem.partition("-")[2]: path.stem for path in
            (WORKFLOW.parent / "notebooks").glob("*.ipynb")}  # fmt: skip
"""The chapters' files by what they are about, whatever their order in the book."""
SEGMENTATION = CHAPTERS["segmentation"]


@pytest.fixture(scope="module")
def grids():
    """The module, which is no part of the library."""
    spec = importlib.util.spec_from_file_location("workflow_grid", WORKFLOW / "grid.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


PARAMETERS = "models = ['a']\ndataset = 'x'\nseed = 0\noutput = 'output'\nkeep: float = 0.6"


@pytest.fixture
def notebook(tmp_path):
    """A notebook that can be run in a grid."""
    note = nbformat.v4.new_notebook()
    note.cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, "print(keep)")]
    note.cells[0].metadata.tags = ["parameters"]
    nbformat.write(note, tmp_path / "count.ipynb")
    return tmp_path / "count.ipynb"


def describe(notebook, **changes):
    content = {
        "models": ["one", ["one", "two.pth@small"]],
        "datasets": ["creatures", "voc:/data/VOC"],
        "seeds": [0, 7],
        "notebooks": {str(notebook): {"keep": 0.5}},
    } | changes
    path = notebook.parent / "mine.yml"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def test_every_combination_is_one_run_in_a_folder_of_its_own(grids, notebook):
    grid = grids.read_grid(describe(notebook))
    assert grid.folder == Path("results/mine")
    assert len({cell.folder for cell in grid.cells}) == len(grid.cells) == 2 * 2 * 2
    first, last = grid.cells[0], grid.cells[-1]
    assert first.folder == Path("results/mine/count/one/creatures/seed-0")
    assert first.parameters == {
        "keep": 0.5,
        "models": ["one"],
        "dataset": "creatures",
        "seed": 0,
        "output": "results/mine/count/one/creatures/seed-0",
    }
    assert last.parameters["models"] == ["one", "two.pth@small"]
    assert (last.labels, last.dataset, last.seed) == (["one", "two"], "voc:/data/VOC", 7)


def test_names_that_would_share_a_folder_are_told_apart(grids, notebook):
    names = ["voc:/a/b", "voc:/a-b", "voc-a-b", "x/" * 200, "y" * 300, "ü" * 200, "+", "..", "$(a)"]
    cells = grids.read_grid(describe(notebook, datasets=names)).cells
    assert len({cell.folder for cell in cells}) == len(cells)
    for cell in cells:
        assert all(len(os.fsencode(part)) < 200 for part in cell.folder.parts)
        assert not set(str(cell.folder)) & set("{}$'\" ()")


@pytest.mark.parametrize(
    ("models", "labels"),
    [
        (["runs/a b/model.safetensors", "runs/c/model.safetensors"], [["a b"], ["c"]]),
        ([["x/model.safetensors", "y/model.safetensors"]], [["x", "y"]]),
        (["m", "m@heads=3"], "both be called 'm'"),
        (["m", "n=m@heads=3", ["n=m@heads=3", "m"]], [["m"], ["n"], ["n", "m"]]),
        (["x/model.pth", "x/model.safetensors"], "both be called 'x'"),
        (["m", ["a/m.pth", "b/n.pth"]], "both be called 'm'"),
        (["+(x) {y} $z.pth"], [["+(x) {y} $z"]]),
        (["<img src=x onerror=alert(1)>.pth"], [["<img src"]]),
        (["m", " m "], "'m' is named twice"),
        (["=m"], "is no label"),
        (["a=b@c@d@e"], "an @"),
    ],
)
def test_a_model_has_one_label_from_the_grid_to_every_figure(grids, notebook, models, labels):
    path = describe(notebook, models=models, datasets=["d"], seeds=[0])
    if isinstance(labels, str):
        with pytest.raises(ValueError, match=re.escape(labels)):
            grids.read_grid(path)
        return
    cells = grids.read_grid(path).cells
    assert [cell.labels for cell in cells] == labels
    for cell in cells:  # the notebook that is given these calls them the same
        assert [parse_spec(text).label for text in cell.parameters["models"]] == cell.labels


def test_notebooks_of_one_name_are_told_apart(grids, notebook):
    other = notebook.parent / "other" / notebook.name
    other.parent.mkdir()
    shutil.copy(notebook, other)
    cells = grids.read_grid(describe(notebook, notebooks={str(notebook): {}, str(other): {}})).cells
    assert len({cell.folder for cell in cells}) == len(cells)
    assert len({cell.name for cell in cells}) == 2


def test_numbers_and_names_are_read_as_they_were_meant(grids, notebook):
    path = describe(notebook)
    path.write_text(
        f"models: [one, no, 2024-01-01]\ndatasets: ['1e5']\nseeds: [010]\n"
        f"notebooks:\n  {notebook}: {{keep: 1e-05}}\n"
    )
    cells = grids.read_grid(path).cells
    assert [cell.labels for cell in cells] == [["one"], ["no"], ["2024-01-01"]]
    assert {(cell.dataset, cell.seed) for cell in cells} == {("1e5", 10)}
    assert cells[0].parameters["keep"] == 1e-5


def test_parameters_may_stand_in_a_file(grids, notebook):
    params = notebook.parent / "paper.yml"
    params.write_text("keep: 0.9\n")
    (cell, *_) = grids.read_grid(describe(notebook, notebooks={str(notebook): str(params)})).cells
    assert cell.parameters["keep"] == 0.9


def test_checkpoints_are_the_models_that_are_files(grids, notebook):
    weights = notebook.parent / "w.pth"
    weights.touch()
    path = describe(notebook, models=["shipped", f"{weights}@crate_small_patch8_224.cpal24"])
    before = {cell.labels[0]: cell.checkpoints for cell in grids.read_grid(path).cells}
    assert before["shipped"] == [] and [file for file, *_ in before["w"]] == [str(weights)]
    os.utime(weights, (1, 1))
    after = {cell.labels[0]: cell.checkpoints for cell in grids.read_grid(path).cells}
    assert after["w"] != before["w"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": None}, "seeds must be a list with at least one entry, not None"),
        ({"seeds": []}, "seeds must be a list with at least one entry"),
        ({"seeds": ["0"]}, "seeds: '0' is not of the right kind"),
        ({"models": "one"}, "models must be a list"),
        ({"models": ["one", "one"]}, "models: 'one' is named twice"),
        ({"models": [["one"], "one"]}, "models: 'one' is named twice"),
        ({"models": [""]}, "models: '' is not of the right kind"),
        ({"models": [" "]}, "models: ' ' is neither a name nor a list of names"),
        ({"models": [3]}, "models: 3 is not of the right kind"),
        ({"models": [[3]]}, r"models: \[3\] is neither a name nor a list of names"),
        ({"datasets": [""]}, "datasets: '' is not of the right kind"),
        ({"datasets": [None]}, "datasets: None is not of the right kind"),
        ({"seeds": [-1]}, "seeds: -1 does not lie in 0 to"),
        ({"seeds": [True]}, "seeds: True is not of the right kind"),
        ({"folder": ""}, "folder: '' is no name"),
        ({"folder": 3}, "folder: 3 is no name"),
        ({"folder": "a{b}"}, r"folder: 'a\{b\}' holds braces"),
        ({"folder": "a\nb"}, "holds braces or line breaks"),
        ({"models": [[]]}, r"models: \[\] is neither a name nor a list of names"),
        ({"model": ["one"]}, "key 'model' is unknown: did you mean 'models'"),
        ({"notebooks": {}}, "notebooks is empty"),
        ({"notebooks": [SEGMENTATION]}, "notebooks must be a mapping"),
        ({"notebooks": {SEGMENTATION[:-1]: {}}}, f"did you mean '{SEGMENTATION}'"),
        ({"notebooks": {SEGMENTATION: {"kep": 1}}}, "'kep' is unknown: did you mean 'keep'"),
        ({"notebooks": {SEGMENTATION: {"seed": 1}}}, "seed is set by the grid; take it out"),
        ({"notebooks": {CHAPTERS["grid"]: {}}}, "parameter 'models' is unknown"),
        ({"notebooks": {SEGMENTATION: "nowhere.yml"}}, "no parameter file nowhere.yml"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(grids, notebook, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        grids.read_grid(describe(notebook, **changes))
    assert str(error.value).startswith(f"{notebook.parent / 'mine.yml'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [m]\nmodels: [n]\n", "line 2: 'models' is given twice"),
        ("1: 2\n", "the name 1 is no text; put it in quotes"),
        ("null: 2\n", "the name None is no text"),
        ("2024-01-01: 2\n", "key '2024-01-01' is unknown"),
        ("models: !!python/object:os.system x\n", "could not determine a constructor"),
        ("models: &m [*m]\n", "recursive"),
        ("[" * 3000, "nested too deeply"),
        ("- a\n", r"the file must be a mapping of names to values, not \['a'\]"),
        ("models: \x07\n", "special characters are not allowed"),
        ("--- {}\n--- {}\n", "a single document"),
    ],
)
def test_yaml_that_surprises_is_refused_in_one_line(grids, tmp_path, text, message):
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        grids.read_grid(tmp_path / "a.yml")
    assert "\n" not in str(error.value)


def test_files_that_are_no_grid(grids, tmp_path):
    with pytest.raises(ValueError, match=r"there is no grid file nowhere\.yml"):
        grids.read_grid(Path("nowhere.yml"))
    (tmp_path / "a.yml").write_text("models: [a\n")
    with pytest.raises(ValueError, match=r"a\.yml: .*expected ',' or ']'") as error:
        grids.read_grid(tmp_path / "a.yml")
    assert "\n" not in str(error.value)
    (tmp_path / "b.yml").write_bytes(b"models: [\xff]")
    with pytest.raises(ValueError, match=r"b\.yml: .*can't decode"):
        grids.read_grid(tmp_path / "b.yml")
    with pytest.raises(ValueError, match="there is no grid file"):
        grids.read_grid(tmp_path)


def test_what_is_no_notebook_is_told(grids, notebook):
    path = describe(notebook)
    for content in ("{}", "[]", "null", "x", '{"cells": [3]}'):
        notebook.write_text(content)
        with pytest.raises(ValueError, match=r"is no notebook|has no cell tagged"):
            grids.read_grid(path)


def test_the_grid_of_the_book_is_sound(grids):
    assert grids.read_grid(WORKFLOW.parent / "params" / "grid.yml").cells


def test_only_what_a_notebook_says_and_does_counts_as_its_source(grids, notebook):
    before = grids.source_digest(notebook)
    note = nbformat.read(notebook, as_version=4)
    note.cells[1].outputs = [nbformat.v4.new_output("stream", text="0.6")]
    note.cells[1].execution_count = 3
    nbformat.write(note, notebook)
    assert grids.source_digest(notebook) == before
    note.cells[1].source = "print(keep, seed)"
    nbformat.write(note, notebook)
    assert grids.source_digest(notebook) != before


def test_files_are_compared_by_name_and_content(grids, tmp_path):
    (tmp_path / "__pycache__").mkdir()
    for name in ("a", "b", "__pycache__/c", ".hidden"):
        (tmp_path / name).write_text("x")
    whole = grids.files_digest([tmp_path])
    assert whole == grids.files_digest([tmp_path / "b", tmp_path / "a"])
    (tmp_path / "b").rename(tmp_path / "c")
    assert grids.files_digest([tmp_path]) != whole


def test_what_is_done_is_gathered_and_what_is_not_is_listed(grids, notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    grid = grids.read_grid(describe(notebook, models=["one"], seeds=[0]))
    done = grid.cells[1].folder
    done.mkdir(parents=True)
    failed = grid.cells[0].folder
    failed.mkdir(parents=True)
    (failed / "log.txt").write_text("a\nValueError:\tno \n\n")
    (done / "run.ipynb").touch()
    (done / "benchmark.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t800.25\n")
    (done / "count-results.csv").write_text(
        "model,quantity,mean,low,high\none,IoU,0.5,0.25,0.75\ncentre prior,IoU,0.1,0.1,0.1\n"
    )
    record = {
        "finished": "2026-01-01T00:00:00+00:00",
        "code": {"commit": "abc", "library": "def"},
        "models": [{"sha256": "0123456789abcdef0123"}],
        "data": [{"data": "f1"}, {"data": "f2"}],
    }
    (done / "count-provenance.json").write_text(json.dumps(record))
    grids.gather(grid)

    def rows(name):
        with (grid.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    missing, made = rows("cells.csv")
    assert missing["reason"] == "ValueError: no"
    assert (missing["state"], missing["dataset"], missing["seconds"]) == (
        "missing",
        "creatures",
        "",
    )
    assert made == {
        "notebook": "count",
        "models": "one",
        "dataset": "voc:/data/VOC",
        "seed": "0",
        "labels": '["one"]',
        "reason": "",
        "folder": str(done.relative_to(grid.folder)),
        "state": "done",
        "finished": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "library": "def",
        "checkpoints": "0123456789abcdef",
        "data": "f1 f2",
        "seconds": "12.5",
        "memory_mb": "800.25",
    }
    assert [(row["model"], row["dataset"], row["mean"]) for row in rows("results.csv")] == [
        ("one", "voc:/data/VOC", "0.5"),
        ("centre prior", "voc:/data/VOC", "0.1"),
    ]
