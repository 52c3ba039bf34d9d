"""The paper's measurements on VOC and COCO folders: the same numbers as on the images themselves.

Creatures are written as VOC and COCO lay images out, without loss, and two more are damaged. The
commands in the heads of the parameter files, only with few images, must find in the folders, to
the last digit, what they find in the images without any folder, and list what they leave out.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from crate_analysis import load_dataset
from crate_analysis.datasets import export_coco, export_voc
from crate_analysis.paths import data_folder

ROOT = Path(__file__).resolve().parents[2]
WHOLE = 6
SIZE = 72
pytestmark = pytest.mark.slow


class Protocol(NamedTuple):
    """A notebook with its parameter file, and the images that stand in for the paper's."""

    notebook: str
    parameters: str
    generated: str
    headline: str


PROTOCOLS = {
    "voc": Protocol("07-segmentation", "voc12", "creatures", "best-head IoU"),
    "coco": Protocol("11-detection", "coco2017", "creatures-scenes", "box AP50"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A shipped model as a file of one's own, without the snapshots, which would take long."""
    copy = tmp_path_factory.mktemp("model") / "mine.safetensors"
    return shutil.copy(data_folder() / "crate-creatures.safetensors", copy)


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    """Each protocol without and with a folder, two at a time: its folder and its process."""

    def run(protocol, dataset, n_images):
        folder = tmp_path_factory.mktemp("run")
        notebook, parameters = ROOT / "notebooks" / protocol.notebook, ROOT / "params"
        command = [sys.executable, "-m", "papermill", f"{notebook}.ipynb", "out.ipynb"]
        command += ["-f", f"{parameters / protocol.parameters}.yml", "-y", f"models: [{model}]"]
        command += ["-p", "dataset", dataset, "-p", "n_images", str(n_images)]
        command += ["-p", "image_size", str(SIZE), "--no-progress-bar"]
        options = {"capture_output": True, "text": True, "cwd": folder}
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        return folder, subprocess.run(command, env=one_thread, **options)

    with ThreadPoolExecutor(2) as pool:
        jobs = {}
        for layout, protocol in PROTOCOLS.items():
            files = tmp_path_factory.mktemp(layout)
            export(layout, files)
            jobs[layout, "images"] = pool.submit(run, protocol, protocol.generated, WHOLE)
            jobs[layout, "folder"] = pool.submit(run, protocol, f"{layout}:{files}", WHOLE + 2)
        yield jobs
        pool.shutdown(cancel_futures=True)


def export(layout: str, folder: Path) -> None:
    """Write some images; of the last two, cut one short and take away the mask or the image."""
    pictures = load_dataset(PROTOCOLS[layout].generated, "val", SIZE, WHOLE + 2)
    write = {"voc": export_voc, "coco": export_coco}[layout]
    write(pictures, folder, image_format="png", progress=False)
    stored = {"voc": ("JPEGImages", "SegmentationClass"), "coco": ("val2017", "val2017")}[layout]
    cut, removed = (sorted((folder / name).glob("*.png")) for name in stored)
    cut[-2].write_bytes(cut[-2].read_bytes()[:200])
    removed[-1].unlink()


def results(runs, layout: str, source: str) -> str:
    folder, finished = runs[layout, source].result()
    assert finished.returncode == 0, finished.stderr[-3000:]
    chapter = PROTOCOLS[layout].notebook
    assert (folder / "output" / f"{chapter}-provenance.json").exists()
    return (folder / "output" / f"{chapter}-results.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", PROTOCOLS)
def test_a_folder_gives_the_numbers_of_the_pictures_in_it(layout, runs):
    true = results(runs, layout, "images")
    found = results(runs, layout, "folder")
    assert f"\nmine,{PROTOCOLS[layout].headline}," in found
    lost = set(true.splitlines()) - set(found.splitlines())
    assert set(found.splitlines()) <= set(true.splitlines())
    # the folder has no training images, and so none of the rivals that are made of them
    assert all("IoU of k-means masks" in line or "IoU of mean mask" in line for line in lost)


@pytest.mark.parametrize("layout", PROTOCOLS)
def test_damaged_pictures_are_listed(layout, runs):
    results(runs, layout, "folder")
    folder, _ = runs[layout, "folder"].result()
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    shown = str([cell.get("outputs") for cell in cells])
    assert f"2 of {WHOLE + 2} images were left out" in shown
    assert "cannot be read as an image" in shown and "is missing" in shown
