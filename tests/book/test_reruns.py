"""Each chapter on a user's own checkpoint and pictures, by parameters only."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import export_voc

ROOT = Path(__file__).resolve().parents[2]
ARCH = "crate_tiny_patch8_224.cpal24"
CHAPTERS = sorted(
    path.stem
    for path in (ROOT / "notebooks").glob("*.ipynb")
    if path.stem != "03-models-and-data"  # it is about the shipped ones
)
NEED_NO_TRUTH = {"01-compression", "10-inside"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights in the layout of the released files, and two sets of them along training."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "released.pth"
    snapshots = [path.parent / "snapshots" / f"step-{step}.pth" for step in (0, 10)]
    snapshots[0].parent.mkdir()
    for file in (path, *snapshots):
        weights = build_model(ARCH, image_size=32, num_classes=10).state_dict()
        torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, file)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for index, sample in enumerate(load_dataset("creatures", "dev", 80, limit=6)):
        picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        picture.resize((90, 60 + index)).save(folder / f"{index}.jpg")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc")
    export_voc(load_dataset("creatures", "val", 64, limit=6), folder)
    return f"voc:{folder}"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", CHAPTERS)
@pytest.mark.parametrize("kind", ["photographs", "voc"])
def test_a_chapter_runs_on_other_pictures_and_weights(
    notebook, kind, checkpoint, request, tmp_path
):
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / f"{notebook}.ipynb")]
    command += [str(out), "-y", f'models: ["{checkpoint}@{ARCH}"]', "-p", "n_images", "6"]
    command += ["-p", "dataset", request.getfixturevalue(kind), "--no-progress-bar"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]

    code = [cell for cell in nbformat.read(out, as_version=4).cells if cell.cell_type == "code"]
    shown = str([cell.outputs for cell in code])
    assert ("has no masks" in shown) == (kind == "photographs" and notebook not in NEED_NO_TRUTH)
    for cell in code:  # a figure that is shown is also saved, with its numbers
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        drawn = any("image/png" in output.get("data", {}) for output in cell.outputs)
        for suffix in (".svg", ".csv"):
            assert (tmp_path / "output" / f"{name}{suffix}").exists() == drawn or not name
