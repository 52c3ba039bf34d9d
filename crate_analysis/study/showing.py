"""How a chapter's figures and tables look as outputs: the same HTML in JupyterLab and the book."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

DENSITY = 2
"""Pixels of a PNG for each pixel of the page, so that it is crisp on a dense screen."""

_MATH = re.compile(r"\$([^$]+)\$")
_BOX = "margin: 1.2em 0; overflow-x: auto"
_PAPER = "max-width: 100%; height: auto; background: white"  # in a dark theme too


@dataclass(frozen=True)
class Exhibit:
    """A figure or table: its number, name, caption, and the files that hold it."""

    kind: str
    number: int
    name: str
    caption: str
    files: Mapping[str, str]
    """What a file holds (`SVG`, `CSV`) -> its path, from where the notebook runs."""

    @property
    def id(self) -> str:
        """What links point to, such as `fig-iou` or `tab-parts`."""
        return f"{'fig' if self.kind == 'Figure' else 'tab'}-{self.name}"

    @property
    def title(self) -> str:
        """Its number in the chapter, such as `Figure 2`."""
        return f"{self.kind} {self.number}"

    def wrap(self, content: str) -> str:
        """The content with its caption and the links to its files, as HTML."""
        links = " · ".join(
            f'<a href="{html.escape(path)}" download>{kind}</a>'
            for kind, path in self.files.items()
        )
        return (
            f'<figure id="{self.id}" class="study-exhibit" style="{_BOX}">\n{content}\n'
            f"<figcaption><strong>{self.title}.</strong> {inline_html(self.caption)} "
            f'<span class="study-files">{links}</span></figcaption>\n</figure>'
        )


def figure_bundle(exhibit: Exhibit, figure: Figure, alt: str, data: pd.DataFrame) -> dict[str, Any]:
    """The outputs that show a figure: HTML, its drawing as SVG, its numbers as CSV, and text.

    Line drawings are shown as SVG; a figure that holds images as PNG, at twice the density.
    """
    svg = as_svg(figure, exhibit.name)
    if any(ax.images for ax in figure.axes):
        image, mime, width = _as_png(figure)
    else:
        image, mime, width = svg.encode(), "image/svg+xml", _width(svg)
    source = f"data:{mime};base64,{base64.b64encode(image).decode()}"
    tag = f'<img src="{source}" alt="{html.escape(alt)}" width="{width}" style="{_PAPER}">'
    return {
        "text/html": exhibit.wrap(tag),
        "image/svg+xml": svg,
        "text/csv": data.to_csv(index=False),
        "text/plain": f"{exhibit.title}. {exhibit.caption}",
    }


def table_bundle(
    exhibit: Exhibit, frame: pd.DataFrame, formats: Mapping[str, Any]
) -> dict[str, Any]:
    """The outputs that show a table: HTML, CSV and text."""
    style = frame.style.hide(axis="index").format(
        dict(formats), na_rep="–", escape="html", precision=3
    )
    style = style.set_table_attributes('class="table dataframe"')
    return {
        "text/html": exhibit.wrap(_plain_html(style)),
        "text/csv": frame.to_csv(index=False),
        "text/plain": f"{exhibit.title}. {exhibit.caption}\n\n{frame.to_string(index=False)}",
    }


def record_html(rows: Mapping[str, str]) -> str:
    """Names and values as a table without headings."""
    frame = pd.DataFrame({"what": list(rows), "value": list(rows.values())})
    style = frame.style.hide(axis="index").hide(axis="columns").format(escape="html")
    return _plain_html(style.set_table_attributes('class="table"'))


def _plain_html(style: Any) -> str:
    """A Styler's HTML without the identifiers that differ from run to run."""
    text = re.sub(r'\s+id="T_[^"]*"', "", style.to_html())
    return re.sub(r"<style[^>]*>\s*</style>\n?", "", text).strip()


def as_svg(figure: Figure, salt: str) -> str:
    """A figure as SVG, the same text for the same figure."""
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(target, format="svg", bbox_inches="tight", metadata={"Date": None})
    return target.getvalue()


def _as_png(figure: Figure) -> tuple[bytes, str, int]:
    target = io.BytesIO()
    density = 96 * DENSITY
    figure.savefig(target, format="png", bbox_inches="tight", dpi=density)
    content = target.getvalue()
    width = int.from_bytes(content[16:20], "big")  # as the header of a PNG has it
    return content, "image/png", round(width / DENSITY)


def _width(svg: str) -> int:
    match = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    return round(float(match[1]) * 96 / 72) if match else 640


def inline_html(markdown: str) -> str:
    """One paragraph of Markdown as HTML; `$...$` is left to MathJax."""
    pieces = _MATH.split(markdown)  # text and formulas take turns
    pieces[::2] = map(MarkdownIt("commonmark", {"html": False}).renderInline, pieces[::2])
    pieces[1::2] = [
        f'<span class="math notranslate nohighlight">\\({html.escape(formula)}\\)</span>'
        for formula in pieces[1::2]
    ]
    return "".join(pieces)
