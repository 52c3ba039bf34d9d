"""Build a book aside, and put it in its place when it is whole.

    python workflow/build.py book book/_build/html
    python workflow/build.py results/mine/summary.ipynb [MORE.ipynb ...] results/mine/html

The first argument is a book's folder, or executed notebooks, which become a book of these pages
with the configuration of the other; the first of them is its first page.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1] / "book"
sys.path.insert(0, str(BOOK))
from execute import environment  # what stands in the environment changes no page

SHARED = ("_config.yml", "_ext", "_static", "references.bib")


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("html", type=Path)
    arguments = parser.parse_args()
    html = arguments.html
    if html.exists() and any(html.iterdir()) and not (html / "searchindex.js").exists():
        sys.exit(f"{html} is no book's folder, and is left alone; name another")
    html.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=html.parent) as aside:
        source = arguments.source[0]
        if source.is_file():
            source = pages(arguments.source, Path(aside) / "source")
        build(source, Path(aside) / "out", html)
    print(f"the page is {html / 'index.html'}")


def pages(notebooks: list[Path], folder: Path) -> Path:
    """A book's folder with these pages only, the first as its first page."""
    folder.mkdir()
    for name in SHARED:
        copy = shutil.copytree if (BOOK / name).is_dir() else shutil.copy
        copy(BOOK / name, folder / name)
    first, *others = notebooks
    shutil.copy(first, folder / "index.ipynb")
    toc = "format: jb-book\nroot: index\n" + ("chapters:\n" if others else "")
    for notebook in others:
        shutil.copy(notebook, folder)
        toc += f"  - file: {notebook.stem}\n"
    (folder / "_toc.yml").write_text(toc, encoding="utf-8")
    return folder


def build(source: Path, aside: Path, html: Path) -> None:
    """Build with warnings as errors, from scratch: a cache would not repeat its pages' warnings."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
    command += ["--path-output", str(aside), "--all", "-q", "-W", "-n", "--keep-going"]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(os.environ),
    )
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
        said = [line for line in plain.splitlines() if "WARNING" in line or "ERROR" in line]
        why = said[0].strip() if said else "for the reasons above"
        sys.exit(f"{source}: the book was not built: {why}; {html} is as it was")
    if html.exists():
        shutil.rmtree(html)
    (aside / "_build" / "html").rename(html)


if __name__ == "__main__":
    main()
