"""The directive in a small book of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[2] / "book/_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["myst_parser", "explorer"]
exclude_patterns = ["out"]
"""


@pytest.fixture
def book(tmp_path):
    """Writes pages, builds them with warnings as errors, and gives the built folder."""

    def built(builder="html", **pages):
        (tmp_path / "conf.py").write_text(CONF, encoding="utf-8")
        for name, text in pages.items():
            path = tmp_path / f"{name.replace('__', '/')}.md"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-b", builder, "-n", "-W", "-q"]
        subprocess.run([*command, str(tmp_path), str(tmp_path / "out")], check=True)
        return tmp_path / "out"

    return built


INDEX = "# A\n\n```{toctree}\ndeep/look\n```\n"
LOOK = "# B\n\n```{explorer}\n```\n"


def test_only_the_page_with_the_directive_loads_scripts(book):
    out = book(index=INDEX, deep__look=LOOK)
    assert "explorer/" not in (out / "index.html").read_text(encoding="utf-8")
    page = (out / "deep/look.html").read_text(encoding="utf-8")
    for name in ("catalogue.js", "network.js", "measures.js", "view.js", "page.js", "explorer.css"):
        assert f"../_static/explorer/{name}" in page
        assert (out / "_static/explorer" / name).is_file()
    assert 'src="../_static/explorer/still.png"' in page
    assert (out / "_static/explorer/still.png").is_file()
    assert "switched off" in page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "network-" not in page, "weights are loaded when their network is chosen"


def test_a_book_without_it_holds_nothing_of_it(book):
    out = book(index="# A\n")
    assert not (out / "_static/explorer").exists()


def test_other_formats_are_built(book):
    assert (book("text", index=INDEX, deep__look=LOOK) / "deep/look.txt").is_file()
