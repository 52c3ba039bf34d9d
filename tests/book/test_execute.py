"""book/execute.py: a chapter is kept when all of it ran, and otherwise nothing changes."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "book/execute.py"


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


def run(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def execute():
    """The module, to call it within this process."""
    spec = importlib.util.spec_from_file_location("book_execute", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.mark.parametrize("name", ["a b+(c).ipynb", "{n_images}.ipynb", "$HOME 'q' \"r\" #.ipynb"])
def test_any_file_name_will_do(tmp_path, name):
    notebook = write(tmp_path / name, "print(n_images)")
    done = run(notebook, tmp_path / "out {0}" / name, "-y", "n_images: 7")
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out {0}" / name, as_version=4)
    assert executed.cells[2].outputs[0].text == "7\n"


def test_numbers_and_text_arrive_as_they_were_meant(tmp_path):
    notebook = write(
        tmp_path / "a.ipynb", "print([a, b, c, d])", parameters="a = 0\nb = 0\nc = 0\nd = 0"
    )
    given = ["-p", "a", "5e-5", "-y", "b: 1e-05", "-p", "c", "x #1: [y", "-y", "d: no"]
    done = run(notebook, tmp_path / "out.ipynb", *given)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.cells[2].outputs[0].text == "[5e-05, 1e-05, 'x #1: [y', 'no']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n_images: [", "no valid YAML"),
        ("n_images", "gives no parameters"),
        ("1: 2", "gives no parameters"),
        ("{n_images: 1, n_images: 2}", "'n_images' is given twice"),
    ],
)
def test_what_is_no_parameter_is_told_in_one_line(tmp_path, text, said):
    done = run(write(tmp_path / "a.ipynb"), tmp_path / "out.ipynb", "-y", text)
    assert done.returncode != 0 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what stands in the environment ----------------------------------------------------------

REVEAL = """
import os, sys, warnings
import matplotlib.pyplot as plt
import numpy, tqdm
import crate_analysis
print(crate_analysis.__file__, sys.flags, sorted(p for p in sys.path if "evil" in p))
print([str(f) for f in warnings.filters if f[0] == "error"], __debug__, sys.getfilesystemencoding())
print(sorted(str(item) for item in plt.rcParams.items()), open(os.devnull).encoding)
print(tqdm.tqdm([]).disable, "shout" in globals())
figure, ax = plt.subplots(figsize=(1, 1))
_ = ax.plot([0, n_images])
"""


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A folder of all that could change a page, and variables that point to it."""
    folder = tmp_path_factory.mktemp("evil")
    for module in ("crate_analysis.py", "startup.py", "numpy.py"):
        (folder / module).write_text("raise SystemExit('the wrong code')")
    startup = folder / "ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("shout = print('started')")
    kernel = folder / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        '{"argv": ["false"], "display_name": "x", "language": "python"}'
    )
    (folder / "matplotlib").mkdir()
    (folder / "matplotlib/matplotlibrc").write_text("font.size: 30\n")
    shutil.copy(folder / "matplotlib/matplotlibrc", folder)
    return folder


STEERED = {
    "Python": {
        "PYTHONPATH": "EVIL", "PYTHONSTARTUP": "EVIL/startup.py", "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "7", "PYTHONINSPECT": "1", "PYTHONUTF8": "0",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "latin-1", "PYTHONSAFEPATH": "1",
        "LC_ALL": "C", "LANGUAGE": "de", "COLUMNS": "20", "OMP_NUM_THREADS": "many",
    },
    "Jupyter and others": {
        "JUPYTER_PATH": "EVIL/jupyter", "JUPYTER_DATA_DIR": "EVIL/jupyter", "JPY_PARENT_PID": "1",
        "JUPYTER_CONFIG_DIR": "EVIL", "JUPYTER_RUNTIME_DIR": "/dev/null/x",
        "JUPYTER_PREFER_ENV_PATH": "0", "IPYTHONDIR": "EVIL/ipython", "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "EVIL", "MATPLOTLIBRC": "EVIL/matplotlibrc", "XDG_CONFIG_HOME": "EVIL",
        "TQDM_DISABLE": "", "TQDM_MININTERVAL": "x", "VIRTUAL_ENV": "EVIL", "CONDA_PREFIX": "EVIL",
    },
    "no home": {"HOME": None, "TMPDIR": "EVIL/" + "long" * 30},
    "a home that is none": {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache"},
}  # fmt: skip


@pytest.fixture(scope="module")
def revealed(evil, tmp_path_factory):
    """What a notebook shows in each environment."""
    folder = tmp_path_factory.mktemp("revealed")
    notebook = write(folder / "a.ipynb", REVEAL)
    (evil / ("long" * 30)).mkdir()

    def show(place, changes):
        variables = dict(os.environ)
        for name, value in changes.items():
            variables.pop(name, None)
            if value is not None:
                variables[name] = value.replace("EVIL", str(evil))
        done = run(notebook, folder / f"{place}.ipynb", env=variables)
        assert done.returncode == 0, done.stderr
        return [
            {**output, "execution_count": None}
            for output in nbformat.read(folder / f"{place}.ipynb", as_version=4).cells[1].outputs
        ]

    with ThreadPoolExecutor(2) as pool:
        cases = {"plain": {}, **STEERED}
        yield {what: pool.submit(show, i, case) for i, (what, case) in enumerate(cases.items())}


@pytest.mark.slow
@pytest.mark.parametrize("what", STEERED)
def test_what_stands_in_the_environment_changes_nothing(what, revealed):
    plain = revealed["plain"].result()
    assert str(ROOT / "crate_analysis") in plain[0]["text"]
    assert any("image/png" in output.get("data", {}) for output in plain)
    assert revealed[what].result() == plain


# --- kernels ---------------------------------------------------------------------------------


def test_kernels_do_not_meet_on_ports(tmp_path):
    """With sixty ports, twelve notebooks four at a time; each kernel on TCP would need five."""
    few = 'ip link set lo up && echo "40000 40059" > /proc/sys/net/ipv4/ip_local_port_range'
    isolated = ["unshare", "--net", "sh", "-c"]
    try:
        possible = subprocess.run([*isolated, few], capture_output=True).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("a network namespace needs root, unshare and ip")
    for number in range(12):
        write(tmp_path / f"{number}.ipynb", "print(n_images)")
    each = f"'{sys.executable}' '{SCRIPT}' '{tmp_path}'/%.ipynb '{tmp_path}'/out/%.ipynb"
    all_of_them = f'seq 0 11 | xargs -P 4 -I % sh -c "{each}"'
    done = subprocess.run([*isolated, f"{few}; {all_of_them}"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert len(list((tmp_path / "out").glob("*.ipynb"))) == 12


def test_a_kernel_has_no_last_word(tmp_path):
    """It is not asked to leave: what it does then can end in a traceback on the screen."""
    last = tmp_path / "last"
    write(
        tmp_path / "a.ipynb",
        f"import atexit, pathlib\natexit.register(pathlib.Path({str(last)!r}).touch)",
    )
    done = run(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not last.exists()


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A kernel that notes each start, and does something else the first times."""

    def install(first: str, times: int):
        starts = tmp_path / "starts"
        script = f"""
            echo x >> '{starts}'
            [ $(wc -l < '{starts}') -le {times} ] && {{ {first}; }}
            exec '{sys.executable}' -m ipykernel_launcher -f "$0"
        """
        folder = tmp_path / "jupyter/kernels/python3"
        folder.mkdir(parents=True)
        argv = ["sh", "-c", script, "{connection_file}"]
        (folder / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "x", "language": "python"})
        )
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        return lambda: len(starts.read_text().split())

    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
                 "MATPLOTLIBRC", "MPLCONFIGDIR"):  # fmt: skip
        monkeypatch.setenv(name, str(tmp_path))  # and back
    return install


@pytest.mark.parametrize("first", ["exit 1", "exec sleep 60"])
def test_a_kernel_that_does_not_come_up_is_started_anew(
    execute, kernels, tmp_path, monkeypatch, capsys, first
):
    starts = kernels(first, times=1)
    monkeypatch.setattr(execute, "START_SECONDS", (2, 30))
    begun = time.monotonic()
    execute.execute(write(tmp_path / "a.ipynb", "print(1)"), tmp_path / "out.ipynb", {})
    assert time.monotonic() - begun < 30
    assert starts() == 2 and (tmp_path / "out.ipynb").exists()
    assert "another is started" in capsys.readouterr().err


def test_kernels_that_never_come_up_are_told(execute, kernels, tmp_path, monkeypatch):
    starts = kernels("exit 1", times=9)
    with pytest.raises(ValueError, match="no kernel came up in 3 tries: Kernel died"):
        execute.execute(write(tmp_path / "a.ipynb", "print(1)"), tmp_path / "out.ipynb", {})
    assert starts() == 3 and not list(tmp_path.glob(".*"))


def test_a_kernel_that_is_killed_is_one_line(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "import os; os.kill(os.getpid(), 9)", "print(1)")
    done = run(notebook, tmp_path / "out.ipynb")
    assert done.returncode != 0 and "its process was killed" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out.ipynb").exists()


def test_nothing_is_left_in_the_temporary_folder(tmp_path):
    (tmp_path / "t").mkdir()
    variables = os.environ | {"TMPDIR": str(tmp_path / "t")}
    assert run(write(tmp_path / "a.ipynb"), tmp_path / "out.ipynb", env=variables).returncode == 0
    assert list((tmp_path / "t").iterdir()) == []
