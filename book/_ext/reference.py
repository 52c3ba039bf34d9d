"""The library's reference, from its docstrings.

These are numpydoc's with two liberties: what follows the colon after an argument's name is what it
means, since its type stands in the signature; and code stands between single backticks, as in
Markdown.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

LISTS = ("Parameters", "Attributes", "See Also", "Returns", "Raises", "Yields")
"""Sections whose entries are a name, a colon and what it means."""

_ENTRY = re.compile(r"(\*{0,2}\w[\w, *]*?) : (.*)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))|\|")


def _adapt(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Bring a docstring into the form that docutils expects."""
    adapted: list[str] = []
    for barred, group in itertools.groupby(_sections(lines), lambda one: one[:1] == "|"):
        block = list(group)
        is_table = barred and len(block) > 2 and set(block[1]) <= set("|-: ")
        adapted += _table(block) if is_table else _code("\n".join(block)).split("\n")
    lines[:] = adapted


def _sections(lines: list[str]) -> Iterator[str]:
    """Headings of sections, and entries as a list of definitions, which other text ends."""
    section = ""
    numbered = iter(zip(lines, [*lines[1:], ""], strict=True))
    for line, following in numbered:
        if line.strip() and re.fullmatch(r"-{3,}", following.strip()):
            section = line.strip()
            next(numbered)
            yield from (f".. rubric:: {section}", "")
            continue
        entry = _ENTRY.fullmatch(line) if section in LISTS else None
        if entry:
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            yield from (names, f"    {entry[2]}")
        else:
            yield line


def _code(text: str) -> str:
    """Names between backticks are links where they lead somewhere; other code and bars are kept."""

    def mark(match: re.Match[str]) -> str:
        if match[1] is None:
            return r"\|"
        marks = "`" if re.fullmatch(r"[\w.]+", match[1]) else "``"
        return marks + match[1] + marks + ("\\ " if match[2] else "")

    parts = re.split(r"(?m)(^\s*(?:>>>|\.\.\. ).*$)", text)
    parts[::2] = [_CODE.sub(mark, part) for part in parts[::2]]
    return "".join(parts)


def _table(rows: list[str]) -> list[str]:
    """A Markdown table as a list of rows."""
    cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (cells[0], *cells[2:]):
        lines += [f"   {'* -' if not number else '  -'} {_code(c)}" for number, c in enumerate(row)]
    return ["", *lines, ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Read docstrings by autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _adapt)
    app.config.default_role = "py:obj"
    app.config.autodoc_typehints_format = "short"
    app.config.autodoc_member_order = "bysource"
    # Types of other libraries have no place in this book.
    app.config.nitpick_ignore_regex = [("py:.*", ".*")]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
