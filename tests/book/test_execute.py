"""book/execute.py: a chapter is kept when all of it ran, and otherwise nothing changes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

SCRIPT = Path(__file__).parents[2] / "book/execute.py"


def write(path: Path, *sources: str, parameters: str = "n_images = 3") -> Path:
    """Write a notebook: a parameters cell and the given code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    notebook.metadata.jupytext = {"formats": "ipynb,py:percent"}
    notebook.cells = [nbformat.v4.new_code_cell(s) for s in (parameters, *sources)]
    notebook.cells[0].metadata.tags = ["parameters"]
    nbformat.write(notebook, path)
    return path


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_success_is_written_clean(tmp_path):
    loud = "import sys\nprint('look here', file=sys.stderr)"
    notebook = write(tmp_path / "a.ipynb", "print(n_images)", loud)
    out, again = tmp_path / "deep" / "out.ipynb", tmp_path / "again.ipynb"
    done = run(notebook, out, "-p", "n_images", "7")
    assert done.returncode == 0, done.stderr
    assert "cell 4: look here" in done.stderr  # the book leaves it out, the builder sees it
    executed = nbformat.read(out, as_version=4)
    assert executed.cells[2].outputs[0].text == "7\n"
    for node in (executed, *executed.cells):
        assert not {"jupytext", "papermill", "execution"} & node.metadata.keys()
    assert executed.cells[1].metadata.tags == ["injected-parameters", "hide-input"]
    assert [p.name for p in out.parent.iterdir()] == ["out.ipynb"]
    assert nbformat.read(notebook, as_version=4).cells[1].outputs == []

    # Nothing in the file tells when or where it ran, so a second run gives the same one.
    assert run(notebook, again, "-p", "n_images", "7").returncode == 0
    executed.cells[1].id = nbformat.read(again, as_version=4).cells[1].id  # papermill's, random
    assert executed == nbformat.read(again, as_version=4)


def test_failure_leaves_the_last_good_copy(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "print(1)", "1 / 0")
    out = tmp_path / "out" / "a.ipynb"
    out.parent.mkdir()
    out.write_text("good")
    done = run(notebook, out)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stderr
    assert [p.name for p in out.parent.iterdir()] == ["a.ipynb"] and out.read_text() == "good"


def test_a_cell_that_leaves_early_is_a_failure(tmp_path):
    # papermill takes exit(0) for success and leaves the cells after it unrun.
    notebook = write(tmp_path / "a.ipynb", "raise SystemExit(0)", "print(1)")
    done = run(notebook, tmp_path / "out.ipynb")
    assert done.returncode != 0 and "cell 2" in done.stderr
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interruption_leaves_no_half_file(tmp_path, how):
    begun = tmp_path / "begun"
    notebook = write(
        tmp_path / "a.ipynb",
        f"import os, pathlib, time\npathlib.Path({str(begun)!r}).write_text(str(os.getpid()))",
        "time.sleep(60)",
    )
    out = tmp_path / "out" / "a.ipynb"
    command = [sys.executable, str(SCRIPT), str(notebook), str(out)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A background job is started with SIGINT ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(lambda: begun.exists() and begun.read_text(), "the kernel to start")
        time.sleep(0.5)
        process.send_signal(how)
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not out.exists()
    # The kernel must not go on by itself, computing for nobody.
    wait_for(lambda: not alive(int(begun.read_text())), "the kernel to end")
    if how != signal.SIGKILL:
        assert list(out.parent.iterdir()) == []
        assert b"Traceback" not in errors, errors.decode()
        return
    # Nobody can tidy up after SIGKILL: the next run must not mind what it left.
    write(notebook, "print('again')")
    assert run(notebook, out).returncode == 0
    assert [p.name for p in out.parent.iterdir()] == ["a.ipynb"]


def wait_for(condition, what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_unknown_parameter_is_refused_before_anything_runs(tmp_path):
    notebook = write(tmp_path / "a.ipynb", f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    done = run(notebook, tmp_path / "out.ipynb", "-p", "n_image", "7")
    assert done.returncode != 0
    assert "unknown parameter 'n_image', did you mean 'n_images'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.ipynb").exists()


def test_missing_notebook_is_one_line(tmp_path):
    done = run(tmp_path / "nowhere.ipynb", tmp_path / "out.ipynb")
    assert done.returncode != 0 and "nowhere.ipynb" in done.stderr
    assert "Traceback" not in done.stderr
