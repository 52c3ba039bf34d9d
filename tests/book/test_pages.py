"""A notebook's plain links, figures and findings as they come out in the book."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from crate_analysis.study.showing import Exhibit, figure_bundle, table_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TEXT = """# A chapter

As [Yu et al. 2024](../book/bibliography.md#yu2024emergence) say, and
[the other chapter](02-other.ipynb#fig-line), see [Figure 1](#fig-line), [Table 1](#tab-shares).
"""
FOUND = "**It holds.** See [Figure 1](#fig-line).\n\n| | `a` |\n| --- | ---: |\n| IoU | 0.5 |"


def chapter(text: str) -> nbformat.NotebookNode:
    """An executed notebook with a figure, a table and a report."""
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    data = pd.DataFrame({"x": [0, 1]})
    files = {"SVG": "output/line.svg", "CSV": "output/line.csv"}
    shown = [
        figure_bundle(
            Exhibit("Figure", 1, "line", "A `line` of $R^c$.", files), figure, "A line.", data
        ),
        table_bundle(Exhibit("Table", 1, "shares", "Shares.", {"CSV": "s.csv"}), data, {}),
        {"text/markdown": FOUND, "text/plain": FOUND},
    ]
    plt.close(figure)
    note = nbformat.v4.new_notebook()
    note.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    note.cells = [nbformat.v4.new_markdown_cell(text)]
    for bundle in shown:
        output = nbformat.v4.new_output("display_data", bundle)
        note.cells.append(nbformat.v4.new_code_cell("1", execution_count=1, outputs=[output]))
    return note


def build(source: Path, html: Path) -> subprocess.CompletedProcess:
    """As from a shell whose settings have nothing to do with the book."""
    command = [sys.executable, str(ROOT / "workflow/build.py"), str(source), str(html)]
    odd = {"PYTHONWARNINGS": "error", "MPLBACKEND": "Agg", "LC_ALL": "C", "COLUMNS": "20"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **odd}
    )


def book(folder: Path, text: str) -> Path:
    """A book of two chapters and the bibliography."""
    source = folder / "book"
    shutil.copytree(ROOT / "book/_ext", source / "_ext")
    for name in ("_config.yml", "references.bib", "bibliography.md"):
        shutil.copy(ROOT / "book" / name, source / name)
    shutil.copytree(ROOT / "book/_static", source / "_static")
    (source / "index.md").write_text("# A book\n\n{cite:t}`yu2024emergence`\n")
    (source / "notebooks").mkdir()
    for name, own in (("01-a", text), ("02-other", "# Another")):
        nbformat.write(chapter(own), source / "notebooks" / f"{name}.ipynb")
    pages = ["notebooks/01-a", "notebooks/02-other", "bibliography"]
    entries = "".join(f"  - file: {page}\n" for page in pages)
    (source / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{entries}")
    return source


def test_links_figures_and_findings_come_out(tmp_path):
    done = build(book(tmp_path, TEXT), tmp_path / "html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/notebooks/01-a.html").read_text(encoding="utf-8")
    for target in ("../bibliography.html#yu2024emergence", "02-other.html#fig-line", "#fig-line",
                   "#tab-shares"):  # fmt: skip
        assert f'href="{target}"' in page
    assert page.count('id="fig-line"') == 1
    bibliography = (tmp_path / "html/bibliography.html").read_text(encoding="utf-8")
    assert 'id="yu2024emergence"' in bibliography
    files = re.findall(r'(?:href|src)="([^"]*_exhibits[^"]*)"', page)
    assert len(files) == 4  # the image, and three files
    assert all((tmp_path / "html/notebooks" / file).is_file() for file in files)
    assert 'alt="A line."' in page and "<strong>Figure 1.</strong> A <code>line</code> of " in page
    assert r"\(R^c\)" in page and "tex-chtml.js" in page  # a formula, and what sets it
    assert "<strong>It holds.</strong>" in page and "data:image" not in page
    assert re.search(r"<table.*?IoU.*?0\.5", page, re.DOTALL)


@pytest.mark.parametrize(
    "link",
    ["[Figure 9](#fig-nine)", "[x](03-none.ipynb)", "[x](../book/bibliography.md#nobody2024)"],
)
def test_a_dead_link_fails_the_book(tmp_path, link):
    done = build(book(tmp_path, f"{TEXT}\n{link}"), tmp_path / "html")
    assert done.returncode != 0 and "not found" in done.stderr
    assert not (tmp_path / "html").exists()


def test_in_a_book_of_one_page_links_to_others_are_text(tmp_path):
    nbformat.write(chapter(TEXT), tmp_path / "run.ipynb")
    done = build(tmp_path / "run.ipynb", tmp_path / "html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html/index.html").read_text(encoding="utf-8")
    assert "As Yu et al. 2024 say" in page and 'href="#fig-line"' in page
