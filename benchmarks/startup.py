"""What it takes to begin: importing the library, and the time to a first figure.

    python benchmarks/startup.py [REVISION]

A REVISION of this repository, such as a commit, is checked out aside and timed alternately with the
files that lie here, so that their ratio means something on a noisy machine. Timed are the import of
the library, the imports of a chapter, and `book/execute.py` on a notebook that has these imports
and one figure. Each is given in seconds of wall time and of computing time, which other programs on
the machine change less.
"""

from __future__ import annotations

import ast
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
CHAPTER = "*-segmentation.ipynb"
FIGURE = "plt.plot([0, 1]);"

Seconds = tuple[float, float]
"""Of wall time, and of computing time."""


def checked_out(revision: str, stack: ExitStack) -> Path:
    """A folder with the files of a revision, for as long as the stack lasts."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", revision], check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def chapters_imports(clone: Path) -> str:
    """All that a chapter imports."""
    (path,) = (clone / "notebooks").glob(CHAPTER)
    notebook = nbformat.read(path, as_version=4)
    nodes = (
        node
        for cell in notebook.cells
        if cell.cell_type == "code"
        for node in ast.parse(cell.source).body
    )
    return "\n".join(
        ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)
    )


def timed(clone: Path, *command: str | Path) -> Seconds:
    """How long a command of this Python takes, with the library of a clone."""
    variables = {**os.environ, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    options = {"cwd": clone, "env": variables, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([sys.executable, *command], **options)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time everything in turn and print a table."""
    with ExitStack() as stack:
        clones = {"now": ROOT}
        for revision in sys.argv[1:]:
            clones = {revision: checked_out(revision, stack), **clones}
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[tuple[str, str], list[Seconds]] = {}
        for _ in range(ROUNDS + 1):  # the first compiles modules, and is left out
            for name, clone in clones.items():
                imports = chapters_imports(clone)
                notebook = nbformat.v4.new_notebook()
                notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
                cells = (f"{imports}\nimport matplotlib.pyplot as plt", FIGURE)
                notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
                nbformat.write(notebook, work / "first.ipynb")
                script = clone / "book" / "execute.py"
                commands = {
                    "import torch": ("-c", "import torch"),
                    "import crate_analysis": ("-c", "import crate_analysis"),
                    "a chapter's imports": ("-c", imports),
                    "to a first figure": (script, work / "first.ipynb", work / "out.ipynb"),
                }
                for what, command in commands.items():
                    found.setdefault((what, name), []).append(timed(clone, *command))
    for what in dict.fromkeys(what for what, _ in found):
        print(what)
        for name in clones:
            for place, kind in enumerate(("wall", "computing")):
                seconds = [one[place] for one in found[what, name][1:]]
                first = [one[place] for one in found[what, next(iter(clones))][1:]]
                ratios = sorted(one / other for one, other in zip(seconds, first, strict=True))
                print(
                    f"  {name:10} {kind:10} {statistics.median(seconds):6.2f} s, "
                    f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                )


if __name__ == "__main__":
    main()
