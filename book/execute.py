"""Run one notebook from top to bottom and keep the result only when every cell succeeded.

    python book/execute.py notebooks/02-compression.ipynb book/notebooks/02-compression.ipynb
    python book/execute.py NOTEBOOK OUT -p n_images 32 -y 'models: [FILE@ARCH]'

The run goes to a hidden file beside OUT, which is moved to OUT at the very end: a failure or an
interruption at any moment leaves OUT as it was. What stands in the environment or in the user's
settings changes nothing: the kernel is this Python's, with the library of this clone.
"""

import argparse
import glob
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEER = re.compile(
    r"PYTHON|JUPYTER|IPYTHON|JPY_|MPL|MATPLOTLIB|TQDM_|PAPERMILL_|PYDEVD_|NUMEXPR|SOURCE_DATE_EPOCH$"
    r"|GIT_(DIR|WORK_TREE|INDEX_FILE)$|(VIRTUAL_ENV|CONDA_PREFIX|COLUMNS|LINES|FORCE_COLOR|NO_COLOR)$"
)
"""Names of variables that would make another page of the same notebook."""

FIXED = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": str(ROOT),
    "PYTHONUTF8": "1",
    "TQDM_DISABLE": "1",  # progress bars are for people who watch; in a chapter they are noise
}

START_SECONDS = (20, 40, 80)
"""How long a kernel may take to come up before another is started in its place."""

SOCKET_PATH = 100
"""Most bytes in the path of a socket: 104 on some systems, 108 on others, an end mark included."""


def environment(found: Mapping[str, str]) -> dict[str, str]:
    """The environment that notebooks run in: without what would steer them, this clone first."""
    kept = {name: value for name, value in found.items() if not STEER.match(name)}
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", kept.get("OMP_NUM_THREADS", "1")):
        del kept["OMP_NUM_THREADS"]
    return kept | FIXED


if __name__ == "__main__" and environment(os.environ) != os.environ:
    # Some of it steers Python itself, which has read it by now: begin anew without.
    os.execve(sys.executable, sys.orig_argv, environment(os.environ))

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from crate_analysis.names import nearest
from crate_analysis.parsing import parse_value, parse_yaml
from crate_analysis.text import one_line


def main(argv: list[str] | None = None) -> None:
    """Read the command line, run the notebook, report in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("-y", action="append", default=[], metavar="YAML")
    args = parser.parse_args(argv)

    # A stop from outside must go through `finally` below, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(f"{args.notebook}: stopped"))
    start = time.monotonic()
    try:
        execute(args.notebook, args.out, read_parameters(args.p, args.y))
    except (ValueError, OSError) as error:
        sys.exit(f"{args.notebook}: {error}")
    except PapermillExecutionError as error:
        print(error, file=sys.stderr)
        sys.exit(f"{args.notebook}: {error.ename}: {one_line(error.evalue)}")
    except KeyboardInterrupt:
        sys.exit(f"{args.notebook}: interrupted, nothing written")
    print(f"{args.notebook}: ran in {time.monotonic() - start:.0f} s")


def read_parameters(singles: list[list[str]], texts: list[str]) -> dict[str, Any]:
    """What ``-p`` and ``-y`` give, the former last; ValueError on what is no YAML."""
    parameters: dict[str, Any] = {}
    for text in texts:
        given = parse_yaml(text)
        if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
            raise ValueError(f"-y {text!r} gives no parameters: write it as -y 'NAME: VALUE'")
        parameters |= given
    return parameters | {name: parse_value(value) for name, value in singles}


def execute(notebook: Path, out: Path, parameters: dict[str, Any]) -> None:
    """Run ``notebook`` with ``parameters`` and write the executed copy to ``out``.

    Raises ValueError on a parameter that the notebook does not declare, on a cell that did not
    run and on a kernel that did not come up or died, PapermillExecutionError on a cell that failed.
    """
    check_names(parameters, list(papermill.inspect_notebook(literal(notebook))))
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    running = out.with_name(f".{out.stem}.running-{os.getpid()}.ipynb")
    try:
        with kernel_settings() as settings:
            run(notebook, running, parameters, settings)
        executed = nbformat.read(running, as_version=4)
        check_cells(executed)
        for line in stderr_lines(executed):
            print(f"{notebook}: {line}", file=sys.stderr)
        nbformat.write(clean(executed), running)
        running.replace(out)
    finally:
        running.unlink(missing_ok=True)


def run(notebook: Path, running: Path, parameters: dict[str, Any], settings: Config) -> None:
    """Have papermill run it, with another kernel in place of one that does not come up."""
    # What papermill and the kernel's client say of a failure, main says; of a task that an
    # interruption cut off, asyncio tells with a traceback.
    for name in ("papermill", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for seconds in START_SECONDS:
        try:
            papermill.execute_notebook(
                literal(notebook),
                literal(running),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=sys.stderr.isatty(),
                start_timeout=seconds,
                config=settings,
                extra_arguments=["--log-level=50"],  # no remarks of the kernel on itself
            )
            return
        except DeadKernelError:
            raise ValueError(
                "its process was killed in the middle; where memory ran out, lower n_images"
            ) from None
        except RuntimeError as error:
            reason = str(error)
            print(f"{notebook}: {reason}; another is started", file=sys.stderr)
    raise ValueError(f"no kernel came up in {len(START_SECONDS)} tries: {reason}")


@contextmanager
def kernel_settings() -> Iterator[Config]:
    """How to start a kernel that nobody's settings reach, in a folder that goes with it.

    Its sockets are files in that folder: ports, which are taken some time after they were chosen,
    may have been given to two kernels by then, and can be reached by other users of the machine.

    After the last cell it is killed. A kernel that is asked to leave closes its sockets in one
    thread while another still writes to them; once in a while it prints a traceback of that.
    """
    folder = scratch_folder()
    try:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[name] = str(folder / name.lower())
        matplotlib = importlib.util.find_spec("matplotlib")
        if matplotlib and matplotlib.origin:  # its own settings, in place of the user's
            os.environ["MATPLOTLIBRC"] = str(Path(matplotlib.origin).with_name("mpl-data"))
        if not os.access(os.path.expanduser("~"), os.W_OK):  # it notes there what fonts there are
            os.environ["MPLCONFIGDIR"] = str(folder)
        manager: dict[str, Any] = {"connection_file": str(folder / "k.json")}
        if hasattr(socket, "AF_UNIX") and len(os.fsencode(folder / "k-ipc-5")) <= SOCKET_PATH:
            manager["transport"] = "ipc"
        yield Config(ConnectionFileMixin=manager, NotebookClient={"shutdown_kernel": "immediate"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_folder() -> Path:
    """A new folder that only this user can enter, with a path that is short enough for sockets."""
    usual = Path(tempfile.gettempdir())
    short = Path("/tmp")
    where = usual if len(os.fsencode(usual)) <= SOCKET_PATH - 40 or not short.is_dir() else short
    return Path(tempfile.mkdtemp(prefix="crate-", dir=where))


def remove_leftovers(out: Path) -> None:
    """Delete what runs to ``out`` left that were killed too hard to tidy up after themselves."""
    for path in out.parent.glob(f".{glob.escape(out.stem)}.running-*.ipynb"):
        try:
            os.kill(int(path.stem.rpartition("-")[2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:  # alive, and somebody else's
            continue


def literal(path: Path) -> str:
    """A path for papermill, which fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def check_names(given: dict, declared: list[str]) -> None:
    """Refuse a parameter that the parameters cell does not have; papermill only warns."""
    for name in given:
        if name not in declared:
            near = nearest(name, declared, 0.0)
            hint = f", did you mean {near!r}?" if near else ", the notebook has none"
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
