"""Sphinx extension: a book that asks no other host for anything.

MathJax is served from the book itself, out of the ``sphinx-mathjax-offline`` wheel, and only those
of its files that the book can use. The scripts of sphinx-thebe, which fetch a library to run
cells on a remote server, are left out.
"""

import importlib.util
import shutil
from pathlib import Path

from sphinx.application import Sphinx

# The TeX reader with HTML output, its fonts, and the TeX packages that it loads on demand.
_MATHJAX_FILES = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def _mathjax() -> Path:
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed: run `make env`")
    return Path(spec.origin).parent / "static" / "mathjax"


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    # At the end, and not through html_static_path: each .js in there would be loaded on each page.
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "mathjax")
    for name in _MATHJAX_FILES:
        source = _mathjax() / name
        target.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, target / name)
    for unused in target.parent.glob("sphinx-thebe.*"):
        unused.unlink()


def _drop_thebe(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    for key in ("script_files", "css_files"):
        context[key] = [asset for asset in context.get(key, ()) if "thebe" not in _text(asset)]


def _text(asset: object) -> str:
    body = getattr(asset, "attributes", {}).get("body") or ""
    return f"{getattr(asset, 'filename', asset)} {body}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Point MathJax at the book's own copy, drop what would reach outside."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("html-page-context", _drop_thebe, priority=900)
    app.connect("build-finished", _copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
