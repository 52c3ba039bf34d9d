"""What several test modules use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = str(ROOT)  # what tests start runs this clone's library too
PARITY = Path(os.environ.get("CRATE_ANALYSIS_PARITY", ROOT.parent / "shared" / "parity"))


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of reference outputs of the public implementations."""
    if not PARITY.is_dir():
        pytest.skip(f"no reference outputs at {PARITY}; set CRATE_ANALYSIS_PARITY to their folder")
    return PARITY


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the test run's type checks, so that a wrong value meets the code's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def run_all_cells() -> Callable[[Page], None]:
    """Run the notebook that is open in JupyterLab, once.

    Asked before the kernel is there, JupyterLab does nothing, or does it later: whoever asked again
    meanwhile gets a second run, with new outputs in place of those that a test holds.
    """

    def run(page: Page) -> None:
        from playwright.sync_api import TimeoutError

        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=120_000)
        sessions = f"{page.evaluate('location.origin')}/api/sessions"
        end = time.monotonic() + 120
        while not any(
            session["kernel"]["connections"] and session["kernel"]["execution_state"] == "idle"
            for session in page.request.get(sessions).json()
        ):
            assert time.monotonic() < end, "no kernel came up"
            time.sleep(0.2)
        for _ in range(20):
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            with suppress(TimeoutError):
                page.wait_for_function(
                    "[...document.querySelectorAll('.jp-InputPrompt')]"
                    ".some((prompt) => /\\[[*\\d]+\\]/.test(prompt.textContent))",
                    timeout=5_000,
                )
                return
        raise RuntimeError("no cell was run")

    return run
