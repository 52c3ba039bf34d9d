"""papermill's own ways to give parameters."""

import subprocess
import sys

import nbformat


def test_papermills_own_paths_and_numbers_are_taken(tmp_path):
    note = nbformat.v4.new_notebook()
    note.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    check = "from crate_analysis.study.parameters import read_parameters\n"
    sources = ("step: float = 1.0", f"{check}print(read_parameters(globals()))")
    note.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    note.cells[0].metadata.tags = ["parameters"]
    nbformat.write(note, tmp_path / "a.ipynb")
    command = [sys.executable, "-m", "papermill", "a.ipynb", "out.ipynb", "--no-progress-bar"]
    command += ["--inject-paths", "-p", "step", "5e-5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert shown == "{'step': 5e-05}\n"
