"""What the README promises: its code runs, its files and links are there."""

import re
from pathlib import Path

import pytest

from crate_analysis import list_models

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)  # code shows links to write
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), f"{page} refers to {target}"


def test_the_notebook_command_names_a_notebook_and_its_parameters():
    import papermill

    command = re.search(r"papermill (notebooks/\S+)(.*?)```", README, re.DOTALL)
    declared = papermill.inspect_notebook(ROOT / command[1])
    given = re.findall(r"-y '(\w+):|-p (\w+) ", command[2])
    assert given and {a or b for a, b in given} <= declared.keys()


def test_the_ten_lines_run(capsys):
    if list_models().empty:
        pytest.skip("no model is shipped in data/")
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and lines[0].startswith("0 tensor(")


README = (ROOT / "README.md").read_text(encoding="utf-8")
