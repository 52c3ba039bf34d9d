"""What several test modules use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

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
