"""What an installation without a clone holds: the library, and the models shipped with it."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "crate_analysis", "data", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE",
)  # fmt: skip
USE = """
import crate_analysis, torch
from crate_analysis.models.zoo import snapshot_files, shipped_files
model = crate_analysis.load_model("crate-creatures")
print(crate_analysis.__file__, crate_analysis.__version__, sep="\\n")
print(*sorted(crate_analysis.list_models().name), sep=" ")
print(len(snapshot_files(shipped_files()["crate-creatures"])))
print(model(torch.zeros(1, 3, 72, 72)).shape[0])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the library as it is installed from a wheel that was built from an sdist."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "clone"
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name, **({"ignore": skipped} if (ROOT / name).is_dir() else {}))
    (source / "data" / "half.part").touch()
    build = "from setuptools.build_meta import build_sdist as b; print(b('..'))"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "--target", folder / "site", unpacked, cwd=folder)
    return folder / "site"


def run(*command, cwd, **variables):
    variables = {"PYTHONPATH": "", **variables}
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installation_without_a_clone_has_the_models(installed, tmp_path):
    said = run(sys.executable, "-c", USE, cwd=tmp_path, PYTHONPATH=str(installed))
    file, version, models, snapshots, images = said.splitlines()
    assert Path(file).is_relative_to(installed)
    assert version != "unknown"
    assert models.split() == sorted(path.stem for path in (ROOT / "data").glob("*.safetensors"))
    assert int(snapshots) == 1 + len(list((ROOT / "data/snapshots/crate-creatures").iterdir()))
    assert images == "1"


@pytest.mark.slow
def test_data_lie_in_one_place_and_leftovers_are_not_shipped(installed):
    shipped = {path.relative_to(installed / "crate_analysis/_data") for path in
               (installed / "crate_analysis/_data").rglob("*") if path.is_file()}  # fmt: skip
    ours = {path.relative_to(ROOT / "data") for path in (ROOT / "data").rglob("*")
            if path.is_file() and path.suffix != ".part"}  # fmt: skip
    assert shipped == ours
    assert not (installed / "data").exists()
    assert not (ROOT / "crate_analysis/_data").exists()
