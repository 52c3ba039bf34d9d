"""Grid files and parameters of any content: a right answer, or an error in one line."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crate_analysis.parsing import parse_value, parse_yaml, to_yaml
from crate_analysis.specs import parse_spec
from crate_analysis.study.parameters import ParameterError, check_value

ROOT = Path(__file__).parents[2]
MANY = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ODD = st.sampled_from([
    "", " ", "a", "1e-05", "010", "no", "null", "2024-01-01", "x/model.safetensors", "a=b", "a@b=1",
    "=", "@", "hf:", "hf:a/b", "folder:{x}", "$(x)", "../..", "/", "~", "\0", "'\"`", "<img src=x>",
    "😀", "a\nb", "+", "x" * 300,
])  # fmt: skip
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, ODD)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | ODD, inner, max_size=3),
    max_leaves=8,
)


def load(path):
    spec = importlib.util.spec_from_file_location(f"fuzzed_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def grids():
    return load(ROOT / "workflow/grid.py")


@pytest.fixture(scope="module")
def execute():
    return load(ROOT / "book/execute.py")


def same(one, other):
    """Equality for which nan is nan, and 1 is neither 1.0 nor True."""
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return all(a == b and same(x, y) for (a, x), (b, y) in pairs)
    if isinstance(one, list):
        return all(same(x, y) for x, y in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


@MANY
@given(VALUE)
@example({"x": "1e-05", "y": "=", "z": "0x1", "~": "<<"})
def test_what_is_written_as_yaml_is_read_as_the_same(value):
    written = to_yaml(value)
    assert "\n" not in written
    assert same(parse_yaml(written), value)


@MANY
@example('"\U00018cd6')
@given(st.text(st.sampled_from("ab1: -?[]{},&*!|>'\"%@`#~\n\t.e+=<0x_"), max_size=30) | TEXT | ODD)
def test_any_text_is_read_or_refused_in_one_line(execute, text):
    try:
        parse_yaml(text)
    except ValueError as error:
        assert str(error).isprintable()
    value = parse_value(text)  # never refuses
    assert isinstance(value, str | int | float | bool | None)
    try:
        execute.read_parameters([], [text])
    except ValueError as error:
        assert len(str(error).splitlines()) == 1


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    note = nbformat.v4.new_notebook()
    source = "models = ['a']\ndataset = 'x'\nseed = 0\noutput = 'output'\nkeep: float = 0.6"
    note.cells = [nbformat.v4.new_code_cell(source)]
    note.cells[0].metadata.tags = ["parameters"]
    nbformat.write(note, folder / "count.ipynb")
    return folder / "count.ipynb"


NAMES = st.lists(ODD | TEXT, min_size=1, max_size=4)
KEYS = {
    "models": st.lists(ODD | TEXT | NAMES, min_size=1, max_size=4) | VALUE,
    "datasets": NAMES | VALUE,
    "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=2) | VALUE,
    "notebooks": st.dictionaries(st.just("count.ipynb"), VALUE) | VALUE,
    "folder": ODD | TEXT | VALUE,
}


@MANY
@given(st.data())
def test_any_grid_file_is_read_or_refused_in_one_line(grids, notebook, data):
    content = {
        "models": ["one"], "datasets": ["d"], "seeds": [0],
        "notebooks": {str(notebook): {"keep": 0.5}},
    }  # fmt: skip
    for key in data.draw(st.sets(st.sampled_from(sorted(KEYS)), max_size=3)):
        content[key] = data.draw(KEYS[key], label=key)
    content |= data.draw(st.dictionaries(TEXT, VALUE, max_size=1) | st.just({}))
    path = notebook.with_name("mine.yml")
    path.write_text(to_yaml(content), encoding="utf-8")
    try:
        grid = grids.read_grid(path)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and str(error).isprintable()
        assert str(error).startswith(f"{path}: ")
        return
    assert len({cell.folder for cell in grid.cells}) == len(grid.cells) > 0
    labels = {}
    for cell in grid.cells:
        assert cell.folder.parent.parent.parent.parent == grid.folder
        assert not set(str(cell.folder)) & set("{}\n\0")
        for spec in cell.models:
            assert labels.setdefault(spec.label, spec) == spec, "a label means one model"
        given_back = [parse_spec(text) for text in cell.parameters["models"]]
        assert [spec.label for spec in given_back] == cell.labels
        assert same(parse_yaml(to_yaml(cell.parameters)), cell.parameters)
    grids.digest(json.dumps(cell.checkpoints).encode() for cell in grid.cells)


KINDS = [int, float, str, bool, list[str], list[int], int | None, dict[str, float]]


@MANY
@given(VALUE, st.sampled_from(KINDS))
def test_any_value_fits_its_kind_or_is_refused_in_one_line(value, kind):
    try:
        check_value("x", value, kind)
    except ParameterError as error:
        assert len(str(error).splitlines()) == 1
