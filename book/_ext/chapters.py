"""Notebooks as pages: their plain links work here too, and their figures come with their files.

Notebooks hold no markup that only Sphinx understands. Links in them are those that JupyterLab
follows: to a notebook beside it, to `../book/bibliography.md#KEY`, to `#fig-NAME` on the same page.
`Study` shows figures and tables as HTML, with the files behind them in the same output; here these
become files of the site.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

FILES = "_exhibits"
"""The folder of the site that holds the figures' drawings and numbers."""

_EXHIBIT = re.compile(r'<figure id="([^"]+)" class="study-exhibit"')
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def _read_notebook(app: Sphinx, docname: str, source: list[str]) -> None:
    """Adapt a notebook before it is parsed."""
    if Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    notebook = json.loads(source[0])
    alone = "bibliography" not in app.env.found_docs  # a page or two, not the book
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _adapt_links("".join(cell["source"]), alone)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = _adapt_links("".join(data["text/markdown"]), alone)
            if "study-exhibit" in "".join(data.get("text/html", "")):
                data["text/html"] = _place_files(app, docname, data)
    source[0] = json.dumps(notebook)


def _adapt_links(markdown: str, alone: bool) -> str:
    """Links as they are from this page; their text alone in pages apart from the book."""
    if alone:
        return _LINK.sub(r"\1", markdown)
    return markdown.replace("](../book/", "](../")


def _place_files(app: Sphinx, docname: str, data: dict[str, Any]) -> str:
    """An exhibit's HTML with its image and links leading to files of the site."""
    page = "".join(data["text/html"])
    exhibit = _EXHIBIT.search(page)
    assert exhibit is not None
    folder = Path(app.outdir, FILES, docname)
    folder.mkdir(parents=True, exist_ok=True)
    up = "" if app.builder.name == "singlehtml" else "../" * docname.count("/")

    def place(suffix: str, content: bytes) -> str:
        name = f"{exhibit[1]}{suffix}"
        (folder / name).write_bytes(content)
        return f"{up}{FILES}/{docname}/{name}"

    def place_image(match: re.Match[str]) -> str:
        suffix = {"image/png": ".png", "image/svg+xml": ".svg"}[match[1]]
        return f'src="{place(suffix, base64.b64decode(match[2]))}"'

    page = re.sub(r'src="data:([^;"]+);base64,([^"]+)"', place_image, page)
    for kind, mime in (("SVG", "image/svg+xml"), ("CSV", "text/csv")):
        if mime in data:
            path = place(f".{kind.lower()}", "".join(data.pop(mime)).encode())
            page = re.sub(
                rf'href="[^"]*" download>{kind}<', f'href="{path}" download>{kind}<', page
            )
    return page


class ExhibitTargets(SphinxTransform):
    """Lets links find what is no Markdown heading: figures, tables, functions."""

    default_priority = 870  # before MyST looks for what `#NAME` means

    def apply(self, **kwargs: Any) -> None:
        """Add them to the headings of the page."""
        slugs = dict(getattr(self.document, "myst_slugs", {}))
        for node in self.document.findall(nodes.raw):
            for name in _EXHIBIT.findall(node.astext()):
                slugs[name] = (node.line, name, name)
            if 'class="math ' in node.astext():  # in a caption: the page needs MathJax too
                self.env.get_domain("math").data["has_equations"][self.env.docname] = True
        for signature in self.document.findall(addnodes.desc_signature):
            slugs |= {name: (signature.line, name, name) for name in signature["ids"]}
        self.document.myst_slugs = slugs
        metadata = self.env.metadata[self.env.docname]
        metadata["myst_slugs"] = {**metadata.get("myst_slugs", {}), **slugs}


def _find_citations(app: Sphinx, env: Any) -> None:
    """The keys of the references are places on the page of the bibliography."""
    for docname in {entry.docname for entry in env.get_domain("cite").bibliographies}:
        keys = env.get_domain("cite").bibdata.data.entries
        metadata = env.metadata[docname]
        metadata["myst_slugs"] = {
            **metadata.get("myst_slugs", {}),
            **{key: (0, key, key) for key in keys},
        }


def setup(app: Sphinx) -> dict[str, bool]:
    """Adapt notebooks when they are read, and tell links what there is to find."""
    app.connect("source-read", _read_notebook)
    app.connect("env-updated", _find_citations)
    app.add_transform(ExhibitTargets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
