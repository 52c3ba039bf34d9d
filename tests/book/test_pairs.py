"""Notebooks are committed as pairs that agree, without outputs, and in the form that works."""

import ast
import json
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(
    {path.stem for path in FOLDER.glob("*.ipynb")} | {p.stem for p in FOLDER.glob("*.py")}
)
EACH = pytest.mark.parametrize("name", NAMES)
NO_RESULTS = {"01-models-and-data", "24-released-checkpoints", "25-grid"}
"""Chapters that measure no model of their own; the last sums up what the others measured."""


def code_cells(name: str) -> list[dict]:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@EACH
def test_both_sides_are_there_and_agree(name):
    for side in ("ipynb", "py"):
        assert (FOLDER / f"{name}.{side}").exists(), f"{name}.{side} is missing: make sync"
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    py = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert jupytext.writes(notebook, "py:percent") == py, f"the sides of {name} differ: make sync"


@EACH
def test_no_outputs(name):
    for cell in code_cells(name):
        assert not cell["outputs"], (
            f"{name}.ipynb holds outputs: jupyter nbconvert --clear-output --inplace {name}.ipynb"
        )
        assert cell["execution_count"] is None


@EACH
def test_parameters_are_plain_literals_and_are_checked(name):
    code = code_cells(name)
    tagged = [i for i, c in enumerate(code) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged `parameters`"
    names = set()
    for statement in ast.parse("".join(code[tagged[0]]["source"])).body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign)
        ast.literal_eval(statement.value)  # a derived value would not follow an injected one
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        names.add(target.id)
    calls = [
        node
        for node in ast.walk(ast.parse("".join(code[tagged[0] + 1]["source"])))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_parameters"
    ]
    assert calls, "the cell after the parameters calls check_parameters"
    assert names == {keyword.arg for keyword in calls[0].keywords}


@EACH
def test_figures_have_caption_label_and_alt_text(name):
    labels = []
    for cell in code_cells(name):
        figure = cell["metadata"].get("mystnb", {}).get("figure")
        if figure:
            assert figure.get("caption") and figure.get("name"), figure
            assert cell["metadata"]["mystnb"].get("image", {}).get("alt"), figure["name"]
            labels.append(figure["name"])
            saved = f'output, "{figure["name"]}")'
            assert saved in "".join(cell["source"]), f"{figure['name']} is not saved: save_figure"
    assert len(labels) == len(set(labels))
    text = "".join((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    for label in labels:
        assert f"`{label}`" in text, f"no sentence of {name} refers to {label}"


def calls(name: str, function: str) -> list[ast.Call]:
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in code_cells(name)))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in nodes if getattr(node.func, "id", "") == function]


@EACH
def test_a_chapter_ends_with_the_record_of_its_run(name):
    shown = calls(name, "show_provenance")
    assert [call.args[0].value for call in shown] == [name]
    last = ast.parse("".join(code_cells(name)[-1]["source"])).body[-1]
    assert isinstance(last, ast.Expr) and "show_provenance" in ast.unparse(last)
    source = "".join("".join(cell["source"]) for cell in code_cells(name))
    assert "parameters = check_parameters(" in source


@EACH
def test_a_chapter_saves_its_headline_numbers_under_its_name(name):
    saved = [call.args[2].value for call in calls(name, "save_results")]
    assert saved == ([] if name in NO_RESULTS else [name])
