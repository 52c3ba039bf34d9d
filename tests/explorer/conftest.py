"""A headless browser with the view's scripts in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import crate_analysis.explorer

STATIC = Path(crate_analysis.explorer.__file__).parent / "static"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def missing(what: str) -> None:
    """Skip on a contributor's machine, fail where nobody would notice the skip."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must not pass without running the page")
    pytest.skip(what)


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        missing("no chromium or chrome on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def scripts(browser):
    """An empty page in which the network and the measures are defined."""
    page = browser.new_page()
    for name in ("network.js", "measures.js"):
        page.add_script_tag(path=STATIC / name)
    yield page
    page.close()
