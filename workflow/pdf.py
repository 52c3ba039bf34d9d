"""Print the whole book to one PDF, by an installed Chromium and without network.

python workflow/pdf.py book book/_build/crate-analysis.pdf
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE = 300
"""Seconds that the browser may take."""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Read the command line, build the book as one page, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("book", type=Path)
    parser.add_argument("pdf", type=Path)
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser to print with; install one of {', '.join(BROWSERS)}")
    arguments.pdf.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".printing-", dir=arguments.pdf.parent) as aside:
        html = one_long_page(arguments.book, Path(aside))
        printed = Path(aside, "book.pdf")
        print_page(browser, html, printed)
        os.replace(printed, arguments.pdf)
    print(f"the book is {arguments.pdf}")


def one_long_page(book: Path, aside: Path) -> Path:
    """The folder of the book as a single page."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(book)]
    command += ["--path-output", str(aside), "--builder", "singlehtml", "--all", "-q"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    html = aside / "_build" / "singlehtml"
    if done.returncode or not (html / "index.html").exists():
        sys.exit(f"{done.stdout}\n{book}: the book was not built, for the reasons above")
    return html


def print_page(browser: str, html: Path, pdf: Path) -> None:
    """Print `index.html` of a folder, served on this machine, once its formulas are set."""
    handler = functools.partial(QuietHandler, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        command = [browser, *FLAGS, "--virtual-time-budget=60000", "--no-pdf-header-footer"]
        command += [f"--print-to-pdf={pdf}", address]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            sys.exit(f"{browser} did not print the book within {PATIENCE} s")
        finally:
            server.shutdown()
    if done.returncode or not pdf.is_file():
        sys.exit(f"{done.stderr}\n{browser} did not print the book")


if __name__ == "__main__":
    main()
