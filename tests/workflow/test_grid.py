"""The description of a grid, and what is gathered of its runs."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import nbformat
import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"


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
    assert (last.models, last.dataset, last.seed) == (("one", "two.pth@small"), "voc:/data/VOC", 7)


def test_names_that_would_share_a_folder_are_told_apart(grids, notebook):
    grid = grids.read_grid(describe(notebook, datasets=["voc:/a/b", "voc:/a-b", "voc-a-b"]))
    assert len({cell.folder for cell in grid.cells}) == len(grid.cells)
    assert len(grids.slug("x/" * 200)) < 80


def test_parameters_may_stand_in_a_file(grids, notebook):
    params = notebook.parent / "paper.yml"
    params.write_text("keep: 0.9\n")
    (cell, *_) = grids.read_grid(describe(notebook, notebooks={str(notebook): str(params)})).cells
    assert cell.parameters["keep"] == 0.9


def test_checkpoints_are_the_models_that_are_files(grids, notebook):
    weights = notebook.parent / "w.pth"
    weights.touch()
    path = describe(notebook, models=["shipped", f"{weights}@crate_small_patch8_224.cpal24"])
    found = {cell.models: cell.checkpoints for cell in grids.read_grid(path).cells}
    assert list(found.values()) == [[], [str(weights)]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": None}, "seeds must be a list with at least one entry, not None"),
        ({"seeds": []}, "seeds must be a list with at least one entry"),
        ({"seeds": ["0"]}, "seeds: '0' is not of the right kind"),
        ({"models": "one"}, "models must be a list"),
        ({"models": ["one", "one"]}, "models: 'one' is named twice"),
        ({"models": [[]]}, r"models: \[\] is neither a name nor a list of names"),
        ({"model": ["one"]}, "key 'model' is unknown: did you mean 'models'"),
        ({"notebooks": {}}, "notebooks is empty"),
        ({"notebooks": ["07-segmentation"]}, "notebooks must be a mapping"),
        ({"notebooks": {"02-segmentatio": {}}}, "did you mean '07-segmentation'"),
        ({"notebooks": {"07-segmentation": {"kep": 1}}}, "'kep' is unknown: did you mean 'keep'"),
        ({"notebooks": {"07-segmentation": {"seed": 1}}}, "seed is set by the grid; take it out"),
        ({"notebooks": {"01-models-and-data": {}}}, "parameter 'models' is unknown"),
        ({"notebooks": {"07-segmentation": "nowhere.yml"}}, "no parameter file nowhere.yml"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(grids, notebook, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        grids.read_grid(describe(notebook, **changes))
    assert str(error.value).startswith(f"{notebook.parent / 'mine.yml'}: ")
    assert "\n" not in str(error.value)


def test_files_that_are_no_grid(grids, tmp_path):
    with pytest.raises(ValueError, match=r"there is no grid file nowhere\.yml"):
        grids.read_grid(Path("nowhere.yml"))
    (tmp_path / "a.yml").write_text("models: [a\n")
    with pytest.raises(ValueError, match=r"a\.yml: .*expected ',' or ']'") as error:
        grids.read_grid(tmp_path / "a.yml")
    assert "\n" not in str(error.value)


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
