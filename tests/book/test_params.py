"""The files of parameters fit the notebooks that they are for."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = {
    path.stem: path
    for path in sorted((ROOT / "params").glob("*.yml"))
    if "notebooks" not in yaml.safe_load(path.read_text(encoding="utf-8"))  # a grid's, of many
}
EACH = pytest.mark.parametrize("name", FILES)


def notebook_of(name: str) -> Path:
    head = FILES[name].read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"# for: (notebooks/\S+\.ipynb)", head)
    assert found, f"{name}.yml does not begin with '# for: notebooks/NAME.ipynb'"
    return ROOT / found[1]


def cells_that_set_and_check(notebook: Path) -> list[str]:
    """The sources of the parameters cell and of the one after it."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    tagged = ["parameters" in cell["metadata"].get("tags", []) for cell in code].index(True)
    return ["".join(cell["source"]) for cell in code[tagged : tagged + 2]]


@EACH
def test_the_notebook_takes_each_parameter(name):
    values, check = cells_that_set_and_check(notebook_of(name))
    given = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    namespace: dict = {}
    exec(values, namespace)
    assert given.keys() <= namespace.keys()
    exec(check, namespace | given)  # ParameterError on a value of the wrong kind


@EACH
def test_the_command_in_the_head_is_for_this_file_and_notebook(name):
    text = FILES[name].read_text(encoding="utf-8")
    command = f"papermill {notebook_of(name).relative_to(ROOT)} out.ipynb -f params/{name}.yml"
    assert f"#     {command} \\\n" in text
    assert "The paper says:" in text
