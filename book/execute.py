"""Run one notebook from top to bottom and keep the result only when every cell succeeded.

    python book/execute.py notebooks/02-compression.ipynb book/notebooks/02-compression.ipynb
    python book/execute.py NOTEBOOK OUT -p n_images 32 -y 'models: [FILE@ARCH]'

The run goes to a hidden file beside OUT, which is moved to OUT at the very end: a failure or an
interruption at any moment leaves OUT as it was.
"""

import argparse
import difflib
import glob
import logging
import os
import signal
import sys
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError


def main(argv: list[str] | None = None) -> None:
    """Read the command line, run the notebook, report in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("-y", action="append", default=[], metavar="YAML")
    args = parser.parse_args(argv)

    parameters: dict = {}
    for text in args.y:
        parameters |= yaml.safe_load(text)
    parameters |= {name: yaml.safe_load(value) for name, value in args.p}

    # A stop from outside must go through `finally` below, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{args.notebook}: stopped"))
    start = time.monotonic()
    try:
        execute(args.notebook, args.out, parameters)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{args.notebook}: {error}")
    except PapermillExecutionError as error:
        sys.exit(f"{error}\n{args.notebook}: failed in the cell above, nothing written")
    except KeyboardInterrupt:
        sys.exit(f"{args.notebook}: interrupted, nothing written")
    print(f"{args.notebook}: ran in {time.monotonic() - start:.0f} s")


def execute(notebook: Path, out: Path, parameters: dict) -> None:
    """Run ``notebook`` with ``parameters`` and write the executed copy to ``out``.

    Raises ValueError on a parameter that the notebook does not declare and on a cell that did not
    run, PapermillExecutionError on a cell that failed.
    """
    check_names(parameters, list(papermill.inspect_notebook(notebook)))
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    running = out.with_name(f".{out.stem}.running-{os.getpid()}.ipynb")
    # Progress bars are for people who watch; in a chapter they are noise.
    os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    # Of a task that an interruption cut off, asyncio tells with a traceback: main has said it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        papermill.execute_notebook(
            notebook,
            running,
            parameters,
            progress_bar=sys.stderr.isatty(),
            log_output=False,
            extra_arguments=["--log-level=50"],  # no remarks of the kernel on itself
        )
        executed = nbformat.read(running, as_version=4)
        check_cells(executed)
        for line in stderr_lines(executed):
            print(f"{notebook}: {line}", file=sys.stderr)
        nbformat.write(clean(executed), running)
        running.replace(out)
    finally:
        running.unlink(missing_ok=True)


def remove_leftovers(out: Path) -> None:
    """Delete what runs to ``out`` left that were killed too hard to tidy up after themselves."""
    for path in out.parent.glob(f".{glob.escape(out.stem)}.running-*.ipynb"):
        try:
            os.kill(int(path.stem.rpartition("-")[2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:  # alive, and somebody else's
            continue


def check_names(given: dict, declared: list[str]) -> None:
    """Refuse a parameter that the parameters cell does not have; papermill only warns."""
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.0)
            hint = f", did you mean {near[0]!r}?" if near else ", the notebook has none"
            raise ValueError(f"unknown parameter {name!r}{hint}")


def check_cells(notebook: nbformat.NotebookNode) -> None:
    """Refuse a copy in which a code cell did not run or holds an error."""
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise ValueError(f"cell {number} did not run")
        if any(output.output_type == "error" for output in cell.outputs):
            raise ValueError(f"cell {number} holds an error")


def stderr_lines(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells wrote to stderr: the book leaves it out, whoever builds it should see it."""
    return [
        f"cell {number}: {line}"
        for number, cell in enumerate(notebook.cells, 1)
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stderr"
        for line in output.text.splitlines()
        if line.strip()
    ]


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop the traces of how and when it ran, and fold the cell that papermill added."""
    for node in (notebook, *notebook.cells):
        for key in ("jupytext", "papermill", "execution"):
            node.metadata.pop(key, None)
        tags = node.metadata.get("tags", [])
        if "injected-parameters" in tags and "hide-input" not in tags:
            tags.append("hide-input")
    return notebook


if __name__ == "__main__":
    main()
