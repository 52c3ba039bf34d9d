"""Each chapter on a user's own checkpoint and images, by parameters only."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from PIL import Image

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import export_voc
from crate_analysis.models import save_model
from crate_analysis.study import RESULTS

ROOT = Path(__file__).resolve().parents[2]
ARCH = "crate_tiny_patch8_224.cpal24"
OTHERS = {
    "00-claims",  # about the results of other chapters
    "01-models-and-data",  # about the shipped models
    "24-released-checkpoints",  # about released weights
    "25-grid",  # about the results of other chapters
}
CHAPTERS = sorted({path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} - OTHERS)
KINDS = ("photographs", "voc", "designs")
FEW = ("-y", "sizes: [8, 12]", "-p", "n_dev", "4", "-p", "epochs", "1")
MORE = {"16-transfer": FEW}
"""What else a chapter is given, so that it fits the images or takes less time."""


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


DESIGNS = {
    "alpha": ("crate_base_patch16_224.alpha", {"patch_size": 8, "num_classes": 10}),
    "dinov2": ("vit_small_patch14_518.dinov2", {"patch_size": 8}),
    "registers": ("vit_small_patch14_518.dinov2_reg4", {"patch_size": 8}),
}
"""Networks of other designs: overcomplete codes; LayerScale, no classifier; registers."""


@pytest.fixture(scope="module")
def designs(tmp_path_factory):
    """A file of random weights of each, small."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("designs")
    sizes = {"image_size": 48, "dim": 24, "heads": 3, "depth": 3}
    for name, (arch, overrides) in DESIGNS.items():
        save_model(build_model(arch, **sizes, **overrides), folder / f"{name}.safetensors")
    return [str(folder / f"{name}.safetensors") for name in DESIGNS]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for index, sample in enumerate(load_dataset("creatures", "dev", 80, limit=6)):
        image = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        image.resize((90, 60 + index)).save(folder / f"{index}.jpg")
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Eight listed: one cut off, one missing, one without any object, five animals of one class."""
    folder = tmp_path_factory.mktemp("voc")
    export_voc(load_dataset("creatures", "val", 64, limit=8), folder)
    damaged, missing, empty = (f"val_{index:06d}" for index in (0, 2, 4))
    whole = (folder / "JPEGImages" / f"{damaged}.jpg").read_bytes()
    (folder / "JPEGImages" / f"{damaged}.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "JPEGImages" / f"{missing}.jpg").unlink()
    for path in (folder / "SegmentationClass").glob("*.png"):
        truth = Image.open(path)
        truth.point(lambda index, most=path.stem != empty: min(index, most)).save(path)
    return f"voc:{folder}"


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    for split, count in (("train", 8), ("val", 3)):
        for index, sample in enumerate(load_dataset("creatures", "dev", 80, limit=2 * count)):
            path = folder / split / f"class-{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(path)
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def runs(checkpoint, designs, photographs, voc, classes, tmp_path_factory):
    """Each chapter on each kind of images, two at a time: (chapter, kind) -> folder, process.

    With the networks of other designs, one after the other, on `designs`.
    """

    def run(chapter, kind):
        dataset = kinds.get(kind, voc)
        models = designs if kind == "designs" else [f"{checkpoint}@{ARCH}"]
        folder = tmp_path_factory.mktemp("run")
        notebook = ROOT / "notebooks" / f"{chapter}.ipynb"
        # as papermill does it, with kernels that cannot meet on a port
        command = [sys.executable, str(ROOT / "book" / "execute.py"), str(notebook), "out.ipynb"]
        command += ["-y", f"models: {json.dumps(models)}", "-p", "dataset", dataset]
        command += ["-p", "n_images", "8", *MORE.get(chapter, ())]
        if chapter == "17-labels":  # which names a data set for each network
            command += ["-y", f"label_datasets: {json.dumps([dataset] * len(models))}"]
        options = {"capture_output": True, "text": True, "cwd": folder}
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        return folder, subprocess.run(command, env=one_thread, **options)

    with ThreadPoolExecutor(2) as pool:
        kinds = {"photographs": photographs, "voc": voc, "classes": classes}
        asked = [(chapter, kind) for chapter in CHAPTERS for kind in KINDS]
        asked.append(("16-transfer", "classes"))
        yield {(chapter, kind): pool.submit(run, chapter, kind) for chapter, kind in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_chapter_runs_on_other_images_and_weights(chapter, kind, runs):
    folder, finished = runs[chapter, kind].result()
    assert finished.returncode == 0, finished.stderr[-2000:]

    shown = str([cell.outputs for cell in code_cells(folder)])
    if kind == "photographs":  # they have no truth at all
        source = (ROOT / "notebooks" / f"{chapter}.py").read_text(encoding="utf-8")
        assert ("` has no " in shown) == bool(re.search(r'needs=[(\[]?"', source))
    else:
        assert not re.search(r"has no masks(?! of parts|, which noise)", shown)
    # the chapter on photographs shows the first that it can read, that on training needs snapshots
    nothing = chapter == "22-photographs" or (kind == "designs" and chapter == "15-training")
    measured = kind != "photographs" and not nothing
    assert ("2 of 8 images were left out" in shown) == measured
    assert_shown_figures_are_saved(folder)
    assert_run_is_recorded(folder, chapter)


@pytest.mark.slow
def test_transfer_runs_on_other_classes(runs):
    folder, finished = runs["16-transfer", "classes"].result()
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert_shown_figures_are_saved(folder)
    assert_run_is_recorded(folder, "16-transfer")


def code_cells(folder):
    notebook = nbformat.read(folder / "out.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def assert_shown_figures_are_saved(folder):
    """Each figure and table has its number and links to its files, which hold what is shown."""
    for cell in code_cells(folder):
        for output in cell.outputs:
            data = output.get("data", {})
            page = data.get("text/html", "")
            links = re.findall(r'href="([^"]+)" download', page)
            assert bool(links) == ("<figure id=" in page)
            for link in links:
                file = folder / link
                mime = {".svg": "image/svg+xml", ".csv": "text/csv"}[file.suffix]
                assert file.read_text(encoding="utf-8") == data[mime]


def assert_run_is_recorded(folder, chapter):
    """What it was run with, and its headline numbers, be they none."""
    record = json.loads((folder / "output" / f"{chapter}-provenance.json").read_text())
    assert record["models"] and record["data"] and record["parameters"]["n_images"] == 8
    results = pd.read_csv(folder / "output" / f"{chapter}-results.csv")
    assert list(results) == RESULTS
    assert results["mean"].notna().all()
    alone = results["low"].isna()  # one number, which has no interval
    assert (alone == results["high"].isna()).all()
    assert (results[~alone].eval("low <= mean and mean <= high")).all()
