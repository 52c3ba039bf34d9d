"""check_parameters: a wrong parameter stops a notebook with one line."""

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from crate_analysis.notebook import (
    check_parameters,
    check_pictures,
    save_figure,
    save_results,
    table,
)

KINDS = {"models": list[str], "dataset": str, "n_images": int, "seed": int}
GOOD = {"models": ["a"], "dataset": "creatures", "n_images": 3, "seed": 0}
CELL = "models = ['a']\ndataset = 'creatures'\nn_images = 3\nseed = 0"


def session(*cells: str, **variables) -> dict:
    """The namespace of a notebook after these cells, the last of which calls the check."""
    return {**GOOD, **variables, "In": ["", *cells, "check_parameters(globals())"]}


def test_good_parameters_pass():
    check_parameters(GOOD, **KINDS)
    check_parameters(session(CELL), **KINDS)
    check_parameters(session(CELL, "# Parameters\nseed = 1\nmodels = ['b', 'c']\n"), **KINDS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 3), (float, 3), (float, 0.5), (bool, True), (str, ""), (list[str], []),
        (list[int], [1, 2]), (int | None, None), (int | None, 3), (dict[str, float], {"a": 1}),
        (list[float] | None, [1, 0.5]), (list[str] | str, "a"),
    ],
)  # fmt: skip
def test_kinds_that_fit(kind, value):
    check_parameters({"x": value}, x=kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True), (int, 3.0), (int, "3"), (int, None), (float, True), (float, "x"), (bool, 1),
        (str, 3), (list[str], ["a", 1]), (list[str], ("a",)), (list[int], [True]),
        (int | None, "None"), (dict[str, float], {"a": "b"}), (dict[str, float], ["a"]),
    ],
)  # fmt: skip
def test_kinds_that_do_not_fit(kind, value):
    with pytest.raises(ValueError, match="parameter 'x' must be") as error:
        check_parameters({"x": value}, x=kind)
    assert "\n" not in str(error.value)


def test_messages_name_the_culprit_and_the_remedy():
    def message(namespace) -> str:
        with pytest.raises(ValueError) as error:
            check_parameters(namespace, **KINDS)
        return str(error.value)

    assert message({**GOOD, "n_images": True}) == (
        "parameter 'n_images' must be int, not True (bool)"
    )
    assert message({k: v for k, v in GOOD.items() if k != "seed"}) == (
        "parameter 'seed' is missing: set it to int"
    )
    assert message(session(CELL, "# Parameters\nn_image = 1\n")) == (
        "unknown parameter 'n_image': did you mean 'n_images'? "
        "(this notebook has models, dataset, n_images, seed)"
    )
    assert len(message({**GOOD, "dataset": ["x" * 1000] * 1000})) < 300


@pytest.mark.parametrize("text", ["a", "[a]", "models: [a]", "models: a"])
def test_a_list_given_as_text_is_told_how_to_write_it(text):
    with pytest.raises(ValueError, match=r"write it as -y 'models: \[a\]'"):
        check_parameters({**GOOD, "models": text}, **KINDS)


def test_a_name_typed_into_the_parameters_cell_is_checked():
    with pytest.raises(ValueError, match="'sed'"):
        check_parameters(session(CELL + "\nsed = 1"), **KINDS)


def test_a_nested_nan_does_not_hide_an_unknown_name():
    with pytest.raises(ValueError, match="'bogus'"):
        check_parameters(session(CELL, "# Parameters\nbogus = [float('nan')]\n"), **KINDS)


def test_later_variables_are_not_parameters():
    later = ("layer = 3", "import numpy as np", "rates = np.ones(3)", "%matplotlib inline", "n=(")
    check_parameters(session(CELL, "check_parameters(globals())", *later, layer=3), **KINDS)
    check_parameters(session(*later, CELL, layer=3), **KINDS)


def test_a_mended_parameters_cell_counts_and_not_the_wrong_one_before():
    wrong = CELL.replace("n_images", "n_image")
    check_parameters(session(wrong, "check_parameters(globals())", CELL, n_image=3), **KINDS)


# --- with the real papermill ------------------------------------------------------------------


@pytest.fixture
def notebook(tmp_path) -> Path:
    """A notebook that checks its parameters, as the chapters do, and writes what it got."""
    note = nbformat.v4.new_notebook()
    note.metadata.kernelspec = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    note.cells = [
        nbformat.v4.new_markdown_cell("# A question"),
        nbformat.v4.new_code_cell(CELL),
        nbformat.v4.new_code_cell(
            "from crate_analysis.notebook import check_parameters\n\n"
            "check_parameters(globals(), models=list[str], dataset=str, n_images=int, seed=int)"
        ),
        nbformat.v4.new_code_cell("print(models, dataset, n_images, seed)\nlayer = 3"),
    ]
    note.cells[1].metadata.tags = ["parameters"]
    nbformat.write(note, tmp_path / "in.ipynb")
    return tmp_path / "in.ipynb"


def papermill(notebook: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook)]
    command += [str(notebook.with_name("out.ipynb")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def printed(notebook: Path) -> str:
    return nbformat.read(notebook.with_name("out.ipynb"), as_version=4).cells[-1].outputs[0].text


def test_too_few_pictures_are_refused_with_the_remedy():
    check_pictures(2)
    with pytest.raises(ValueError, match=r"here: 1; .* needs at least 2: raise n_images"):
        check_pictures(1)


def test_papermill_with_good_parameters(notebook):
    done = papermill(notebook, "-y", "models: [a, b]", "-p", "n_images", "7")
    assert done.returncode == 0, done.stderr
    assert printed(notebook) == "['a', 'b'] creatures 7 0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "bogus", "1"), "unknown parameter 'bogus'"),
        (("-p", "models", "a"), "write it as -y 'models: [a]'"),
    ],
)
def test_papermill_with_a_wrong_parameter_stops(notebook, arguments, message):
    done = papermill(notebook, *arguments)
    assert done.returncode != 0
    *_, marker, last = (line for line in done.stderr.splitlines() if line.strip())
    assert last.startswith("ParameterError: ") and message in last
    assert marker.startswith("Exception encountered")  # no traceback between the two


def test_cells_run_again_in_an_open_session(notebook):
    from nbclient import NotebookClient

    note = nbformat.read(notebook, as_version=4)
    parameters, check, use = note.cells[1:]
    other = nbformat.v4.new_code_cell("threshold = 0.6")
    note.cells = [parameters, check, use, other, check, parameters, check, use]
    note.cells = [nbformat.from_dict({**cell, "id": str(i)}) for i, cell in enumerate(note.cells)]
    NotebookClient(note, timeout=60).execute()
    assert note.cells[-1].outputs[0].text == "['a'] creatures 3 0\n"


def test_a_table_has_its_index_as_columns_and_the_formats_asked_for():
    frame = pd.DataFrame({"share": [0.25, None]}, index=pd.Index(["a", "b"], name="model"))
    html = table(frame, {"share": "{:.0%}"}, missing="none").to_html()
    assert 'class="table"' in html
    assert [text in html for text in (">model<", ">a<", ">25%<", ">none<")] == [True] * 4


def test_a_figure_is_saved_with_its_numbers(tmp_path):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    frame = pd.DataFrame({"model": ["a"], "iou": [0.25]})
    for _ in range(2):  # a rerun writes over what is there
        save_figure(figure, frame, str(tmp_path / "new" / "out"), "fig-a")
    plt.close(figure)
    files = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert files == ["fig-a.csv", "fig-a.svg"]
    assert "</svg>" in (tmp_path / "new" / "out" / "fig-a.svg").read_text()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "out" / "fig-a.csv"), frame)


def test_headline_numbers_are_saved_one_row_each(tmp_path):
    rows = [("a", "IoU", 0.5, 0.25, 0.75), ("b", "IoU", 1.0, 1.0, 1.0)]
    save_results(rows, str(tmp_path / "new"), "05-x")
    found = pd.read_csv(tmp_path / "new" / "05-x-results.csv")
    assert found.columns.tolist() == ["model", "quantity", "mean", "low", "high"]
    assert [tuple(row) for row in found.itertuples(index=False)] == rows
    save_results([], str(tmp_path / "new"), "05-x")
    assert pd.read_csv(tmp_path / "new" / "05-x-results.csv").empty
    with pytest.raises(ValueError, match=r"two results are of \('a', 'IoU'\)"):
        save_results([rows[0], rows[0]], str(tmp_path), "05-x")


def test_the_checked_parameters_are_given_back():
    assert check_parameters({**GOOD, "other": 1}, **KINDS) == GOOD
