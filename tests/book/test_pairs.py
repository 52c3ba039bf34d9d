"""Notebooks are committed as pairs that agree, without outputs, and in the form that works."""

import ast
import json
import re
import runpy
from pathlib import Path

import jupytext
import papermill
import pytest
from pybtex.database import parse_file
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted({path.stem for path in FOLDER.glob("*.*") if path.suffix in (".ipynb", ".py")})
EACH = pytest.mark.parametrize("name", NAMES)
COMMON = ["models", "dataset", "n_images", "image_size", "device", "workers", "seed", "output"]
NO_FINDINGS = {"00-claims", "01-models-and-data", "24-released-checkpoints", "25-grid"}
"""Chapters that measure nothing of their own."""
SUMS_UP = {"00-claims", "25-grid"}
"""Chapters about what others found, which read no networks and no images."""


def cells(name: str, kind: str) -> list[dict]:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    found = [cell for cell in notebook["cells"] if cell["cell_type"] == kind]
    return [{**cell, "source": "".join(cell["source"])} for cell in found]


def is_hidden(cell: dict) -> bool:
    return "hide-input" in cell["metadata"].get("tags", [])


def is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def prose(name: str) -> str:
    return "\n".join(cell["source"] for cell in cells(name, "markdown"))


def exhibits(name: str, kind: str) -> list[tuple[str, ast.Call]]:
    """Name and decorator of each figure, table or report, in order."""
    found = []
    for cell in cells(name, "code"):
        for node in ast.walk(ast.parse(cell["source"])):
            for call in getattr(node, "decorator_list", ()):
                if ast.unparse(getattr(call, "func", call)) == f"study.{kind}":
                    found.append((node.name.replace("_", "-"), call))
    return found


@EACH
def test_both_sides_are_there_and_agree(name):
    for side in ("ipynb", "py"):
        assert (FOLDER / f"{name}.{side}").exists(), f"{name}.{side} is missing: make sync"
    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    py = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert jupytext.writes(notebook, "py:percent") == py, f"the sides of {name} differ: make sync"


@EACH
def test_no_outputs(name):
    for cell in cells(name, "code"):
        assert not cell["outputs"], (
            f"{name}.ipynb holds outputs: jupyter nbconvert --clear-output --inplace {name}.ipynb"
        )
        assert cell["execution_count"] is None


@EACH
def test_a_chapter_is_as_jupyterlab_saves_it(name):
    """What the save hook of `make lab` would change is not committed."""
    path = ROOT / "workflow/jupyter_config.py"
    tidy = runpy.run_path(str(path), {"get_config": Config})["tidy"]
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    tidy({"type": "notebook", "content": notebook})
    assert notebook == json.loads(text), f"{name}: open and save it in `make lab`"


@EACH
def test_no_markup_that_only_sphinx_understands(name):
    for cell in cells(name, "markdown") + cells(name, "code"):
        assert not re.search(
            r"\{[a-z]+(:[a-z]+)?\}`|^:::|^```\{|^\([\w-]+\)=", cell["source"], re.M
        )
        assert "glue(" not in cell["source"] and "mystnb" not in cell["metadata"]


@EACH
def test_links_lead_somewhere(name):
    keys = parse_file(str(ROOT / "book/references.bib")).entries
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(name)):
        file, _, place = target.partition("#")
        if re.match(r"[a-z]+:", target) or not file:
            continue
        assert (FOLDER / file).is_file(), f"{name} links to {target}"
        if file.endswith("bibliography.md") and place:
            entry = keys[place]
            author = entry.persons["author"][0].last_names[0]
            assert entry.fields["year"] in text and author in text, f"[{text}] is {place}"


@EACH
def test_parameters_are_annotated_literals_that_papermill_knows(name):
    (cell,) = (cell for cell in cells(name, "code") if is_parameters(cell))
    names = []
    for statement in ast.parse(cell["source"]).body:
        assert isinstance(statement, ast.AnnAssign), ast.unparse(statement)
        ast.literal_eval(statement.value)  # a derived value would not follow an injected one
        names.append(statement.target.id)
    assert name in SUMS_UP or [one for one in COMMON if one not in names] == []
    assert list(papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))) == names


@EACH
def test_a_chapter_is_a_study_and_ends_with_the_record_of_its_run(name):
    code = cells(name, "code")
    assert sum(f'study = Study(globals(), "{name}")' in cell["source"] for cell in code) == 1
    assert code[-1]["source"] == "study.provenance()"
    assert len(exhibits(name, "report")) == (name not in NO_FINDINGS)


@EACH
def test_plumbing_is_collapsed_and_the_measuring_is_in_sight(name):
    """What is in sight is short: the parameters, one a line or more, and what measures."""
    seen = [cell for cell in cells(name, "code") if not is_hidden(cell)]
    shown = [cell["source"] for cell in seen if not is_parameters(cell)]
    assert all("import" not in source and "@study" not in source for source in shown)
    assert all(source.count("\n") < 20 for source in shown)
    assert name in NO_FINDINGS or shown


@EACH
@pytest.mark.parametrize(("kind", "prefix"), [("figure", "fig"), ("table", "tab")])
def test_figures_and_tables_are_captioned_and_referred_to_by_their_numbers(name, kind, prefix):
    shown = exhibits(name, kind)
    for number, (exhibit, call) in enumerate(shown, 1):
        caption = ast.literal_eval(call.args[0])
        assert caption.endswith("."), caption
        if kind == "figure":
            alt = {keyword.arg: keyword.value for keyword in call.keywords}["alt"]
            assert len(ast.literal_eval(alt)) > 20
        references = re.findall(rf"\[(\w+ \d+)\]\(#{prefix}-{exhibit}\)", prose(name))
        assert set(references) == {f"{kind.capitalize()} {number}"}, f"{exhibit}: {references}"
    referred = set(re.findall(rf"\(#{prefix}-([\w-]+)\)", prose(name)))
    assert referred == {exhibit for exhibit, _ in shown}


def bound(source: str) -> set[str]:
    """Names that a cell gives a value to, apart from its functions' own."""
    names: set[str] = set()
    todo: list[ast.AST] = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
                continue
            case ast.Lambda() | ast.comprehension():
                continue
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=asname):
                names.add(asname or name.partition(".")[0])
        todo += ast.iter_child_nodes(node)
    return names


def test_bound_names_are_those_of_the_notebook():
    source = (
        "import a.b\nx, (y, z) = 1, (2, 3)\nfor i in [j for j in x]: w = 1\ndef f():\n    v = 1"
    )
    assert bound(source) == {"a", "x", "y", "z", "i", "w", "f"}


@EACH
def test_any_cell_can_be_run_again_by_itself(name):
    """No name is given a value by two cells, so that none reads what a later one left."""
    origin: dict[str, int] = {}
    for number, cell in enumerate(cells(name, "code"), 1):
        for one in bound(cell["source"]):
            earlier = origin.setdefault(one, number)
            assert earlier == number, f"code cells {earlier} and {number} of {name} set {one!r}"
