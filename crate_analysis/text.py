"""Text from outside (names of files, folders, models) put into pages, where it stays mere text."""

from __future__ import annotations

import html
import re
import textwrap


def escape(text: object) -> str:
    """For HTML, and for Markdown that may hold HTML: neither reads any of it as its own.

    What Markdown would read is written as character references, which HTML shows as themselves.

    >>> escape("<img src=x onerror=alert(1)> *a*")
    '&lt;img src=x onerror=alert(1)&gt; &#42;a&#42;'
    """
    escaped = html.escape(str(text))
    return re.sub(r"[\\`*_\[\]{}$~|^\n]", lambda found: f"&#{ord(found[0])};", escaped)


def one_line(text: object, most: int = 300) -> str:
    r"""A text without line breaks and what else does not print, cut to ``most`` characters.

    >>> one_line("a\n  b")
    'a b'
    """
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    joined = " ".join(plain.split())
    return joined if len(joined) <= most else joined[: most - 1] + "…"


def figure_text(text: object, width: int = 28) -> str:
    r"""For a figure: in lines that fit beside each other, and no dollar begins a formula.

    >>> figure_text("a long name of a model", width=12)
    'a long name\nof a model'
    """
    lines = textwrap.wrap(one_line(text, 10 * width), width) or [""]
    return "\n".join(lines).replace("$", r"\$")
