"""A wrong parameter stops a notebook with one line; a right one is what its annotation says."""

import subprocess
import sys

import nbformat
import pytest

from crate_analysis.study import ParameterError
from crate_analysis.study.parameters import check_value, literal_assignments, read_parameters

CELL = (
    'models: list[str] = ["a"]\nn_images: int = 3\nlayer: "int or None" = None\nrate: float = 1.0'
)
VALUES = {"models": ["a"], "n_images": 3, "layer": None, "rate": 1.0}
STUDY = "study = Study(globals())"


def session(*cells: str, **values) -> dict:
    """The namespace of a notebook after these cells."""
    return {**VALUES, **values, "In": ["", *cells, STUDY]}


def message(namespace) -> str:
    with pytest.raises(ParameterError) as error:
        read_parameters(namespace)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_parameters_are_those_of_the_annotated_cell_in_order():
    assert read_parameters(session("import os", CELL)) == VALUES
    assert list(read_parameters(session(CELL))) == list(VALUES)


def test_outside_of_a_notebook_the_annotations_are_taken():
    annotations = {"models": list[str], "layer": "int or None"}
    namespace = {"models": ["a"], "layer": 2, "__annotations__": annotations}
    assert read_parameters(namespace) == {"models": ["a"], "layer": 2}


@pytest.mark.parametrize(
    ("cell", "name"),
    [(CELL, "n_image"), (f"{CELL}\nn_image = 3", None), (f"{CELL}\nn_image: int = 3", None)],
)
def test_an_unknown_name_is_told_with_the_nearest(cell, name):
    injected = [f"# Parameters\n{name} = 3\n"] if name else []
    namespace = session(cell, *injected, n_image=3)
    if "n_image: int" in cell:  # declared, hence known
        assert read_parameters(namespace)["n_image"] == 3
    else:
        assert "unknown parameter 'n_image': did you mean 'n_images'?" in message(namespace)


def test_later_cells_and_functions_are_no_parameters():
    later = ["layer = 3", "size: int = len([1])", "import numpy", "x: int"]
    assert read_parameters(session(CELL, *later, layer=3))["layer"] == 3


def test_a_mended_parameters_cell_counts():
    wrong = CELL.replace("n_images", "n_image")
    assert "n_image" not in read_parameters(session(wrong, STUDY, CELL))


@pytest.mark.parametrize("text", ["5e-5", "1e3", " 2 "])
def test_text_that_spells_a_number_serves_as_a_float(text):
    namespace = session(CELL, "# Parameters\nrate = '5e-5'\n", rate=text)
    assert read_parameters(namespace)["rate"] == float(text)
    assert namespace["rate"] == float(text)  # for the cells that come after


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("n_images", "3", "must be int, not '3' (str)"),
        ("n_images", 3.0, "must be int"),
        ("n_images", True, "must be int, not True (bool)"),
        ("rate", "fast", "must be float, not 'fast'"),
        ("layer", "None", "must be int or None"),
        ("models", "a", "write it as -y 'models: [a]'"),
        ("models", ["a", 1], "must be list[str]"),
        ("models", ("a",), "must be list[str]"),
    ],
)
def test_a_value_of_another_kind_is_told_with_what_is_right(name, value, said):
    assert said in message(session(CELL, **{name: value}))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 3), (float, 3), (float, 0.5), (bool, True), (str, ""), (list[str], []),
        (int | None, None), (dict[str, float], {"a": 1}), (list[float] | None, [1, 0.5]),
    ],
)  # fmt: skip
def test_kinds_that_fit(kind, value):
    check_value("x", value, kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(bool, 1), (list[int], [True]), (dict[str, float], {"a": "b"}), (dict[str, float], ["a"])],
)
def test_kinds_that_do_not_fit(kind, value):
    with pytest.raises(ParameterError):
        check_value("x", value, kind)


def test_only_plain_values_are_parameters():
    assert literal_assignments("a: int = 1\nb = 2") == {"a": int, "b": None}
    assert literal_assignments("a: int = 1\nprint(a)") == {}
    assert literal_assignments("a = b + 1") == {}
    assert literal_assignments("a = float('nan')", any_value=True) == {"a": None}
    assert literal_assignments("a = (") == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("-p", "bogus", "1"), "unknown parameter 'bogus'"),
        (("-p", "models", "a"), "write it as -y 'models: [a]'"),
        (("-p", "n_images", "0"), "parameter 'n_images' must be at least 1, not 0"),
    ],
)
def test_papermill_stops_with_one_line(tmp_path, given, said):
    note = nbformat.v4.new_notebook()
    note.metadata.kernelspec = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    workers = f"{CELL}\nworkers: int = 0"
    study = "from crate_analysis.study import Study\n\nstudy = Study(globals(), '01-a')"
    note.cells = [nbformat.v4.new_code_cell(text) for text in (workers, study)]
    note.cells[0].metadata.tags = ["parameters"]
    nbformat.write(note, tmp_path / "in.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(tmp_path / "in.ipynb")]
    command += [str(tmp_path / "out.ipynb"), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    *_, marker, last = (line for line in done.stderr.splitlines() if line.strip())
    assert done.returncode != 0 and last.startswith("ParameterError: ") and said in last
    assert marker.startswith("Exception encountered")  # no traceback between the two
