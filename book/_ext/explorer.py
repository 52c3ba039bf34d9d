"""Sphinx extension: the directive ``explorer``, a network that runs in the page.

Its scripts, weights and images are written into the built book, and only the page with the
directive loads them. A reader without scripts, and every other format, sees a still.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "explorer"
ALT = "An image of an animal, and where [CLS] looks in it: a map for each head of each layer."


class Explorer(SphinxDirective):
    """Where the view stands in its page."""

    def run(self) -> list[nodes.Node]:
        """A still, which the page's scripts replace."""
        self.env.metadata[self.env.docname]["explorer"] = "yes"
        root = "../" * self.env.docname.count("/")
        html = (
            '<div class="crate-explorer">'
            f'<img src="{root}_static/{FOLDER}/still.png" alt="{ALT}" width="100%">'
            "<noscript><p>The network runs in this page by JavaScript, which is switched off here. "
            "The still shows where <code>[CLS]</code> looks in each head of the first network."
            "</p></noscript></div>"
        )
        return [nodes.raw("", html, format="html")]


def _add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    if "explorer" not in app.env.metadata.get(pagename, {}):
        return
    from crate_analysis.explorer import page

    app.add_css_file(f"{FOLDER}/{page.STYLE}")
    for script in page.SCRIPTS:
        app.add_js_file(f"{FOLDER}/{script}")


def _export(app: Sphinx, error: Exception | None) -> None:
    used = any("explorer" in metadata for metadata in app.env.metadata.values())
    if error or app.builder.format != "html" or not used:
        return
    from crate_analysis.explorer import page

    page.export_page(Path(app.outdir, "_static", FOLDER))


def setup(app: Sphinx) -> dict[str, bool]:
    """Take the directive in."""
    app.add_directive("explorer", Explorer)
    app.connect("html-page-context", _add_scripts)
    app.connect("build-finished", _export)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
