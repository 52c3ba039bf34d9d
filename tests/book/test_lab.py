"""A chapter in a real JupyterLab: opened, run, read, picked from and saved, as by a person."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CHAPTER = "07-segmentation"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The chapter's pair in a folder of its own, to be run on few images."""
    folder = tmp_path_factory.mktemp("lab")
    for side in (f"{CHAPTER}.ipynb", f"{CHAPTER}.py", "jupytext.toml"):
        text = (ROOT / "notebooks" / side).read_text(encoding="utf-8")
        (folder / side).write_text(text.replace("n_images: int = 400", "n_images: int = 8"))
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """JupyterLab as `make lab` starts it, in that folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / "workflow/jupyter_config.py"
    command = [sys.executable, "-m", "jupyterlab", f"--config={config}"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--no-browser", "--IdentityProvider.token=read"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["JUPYTER_RUNTIME_DIR"] = str(folder / "run")
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, "JupyterLab did not start"
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab, run_all_cells):
    """The chapter, opened and run to its end."""
    if BROWSER is None:
        pytest.skip("no chromium or chrome on this machine (`apt-get install chromium`)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 5000})
        page.goto(f"{lab}/lab/tree/{CHAPTER}.ipynb?token=read")
        run_all_cells(page)
        page.get_by_text("SHA-256").first.wait_for(timeout=300_000)
        yield page
        browser.close()


def test_findings_and_captions_are_seen(page):
    text = page.locator(".jp-Notebook").inner_text()
    assert re.search(r"of its best head's IoU of 0\.\d+ is image-specific", text)
    assert "mean [95 % interval]" in text
    for number in range(1, 5):
        assert f"Figure {number}." in text
    assert "Table 1." in text
    assert "ParameterError" not in text and "Traceback" not in text
    images = page.locator(".jp-OutputArea img")
    assert images.count() == 4
    for image in images.all():
        assert len(image.get_attribute("alt")) > 20
        assert image.evaluate("image => image.naturalWidth") > 0


def test_no_raw_markup_is_seen(page):
    text = page.locator(".jp-Notebook").inner_text()
    assert not re.search(r"\{[a-z:]+\}`|\]\(#fig|<figure|:::", text)


def test_plumbing_is_collapsed(page):
    shown = page.locator(".jp-CodeCell .jp-InputArea-editor:visible").count()
    assert shown == 2  # the parameters, and what measures
    assert page.locator(".jp-CodeCell").count() > 8


def test_a_picker_draws_the_figure_anew(page):
    figure = page.locator(".jp-OutputArea img").first
    before = figure.get_attribute("src")
    slider = page.locator(".widget-slider .noUi-handle").first
    slider.focus()
    slider.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.jp-OutputArea img').src !== before", arg=before
    )
    assert "Figure 1." in page.locator(".jp-Notebook").inner_text()


def test_its_kernel_needs_no_port(page, folder):
    (connection,) = (folder / "run").glob("kernel-*.json")
    assert json.loads(connection.read_text())["transport"] == "ipc"


def test_saving_leaves_no_trace_in_the_pair(page, folder):
    before = {side: (folder / f"{CHAPTER}.{side}").read_text() for side in ("ipynb", "py")}
    page.locator(".jp-CodeCell .jp-Placeholder:visible").first.click()  # JupyterLab would note it
    page.keyboard.press("Control+s")
    file = folder / f"{CHAPTER}.ipynb"
    end = time.monotonic() + 30
    stamp = file.stat().st_mtime
    while file.stat().st_mtime == stamp and time.monotonic() < end:
        time.sleep(0.2)
    assert json.loads(file.read_text()) == json.loads(before["ipynb"])
    assert (folder / f"{CHAPTER}.py").read_text() == before["py"]
