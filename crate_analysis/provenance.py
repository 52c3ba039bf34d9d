"""What a result is of: code, parameters, checkpoints, data, versions and time, in one record."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import crate_analysis
from crate_analysis.datasets import SampleDataset
from crate_analysis.fingerprints import describe_data, of_code
from crate_analysis.models.checkpoints import locate
from crate_analysis.models.files import files_of
from crate_analysis.specs import parse_spec

PACKAGE = Path(__file__).parent
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "pillow", "pycocotools")
"""Those whose versions can change a number."""


def provenance(
    chapter: str,
    parameters: Mapping[str, Any],
    models: Sequence[str],
    datasets: Iterable[SampleDataset],
) -> dict[str, Any]:
    """The record of one run, JSON-ready.

    Parameters
    ----------
    chapter : the notebook's name.
    parameters : what it was run with, as `read_parameters` gives them.
    models : as they were given to `load_model`. Of each file, a shard too, the SHA-256 is taken,
        which is what `sha256sum` prints and published checkpoints are told apart by.
    datasets : all whose images were read. Of each the fingerprint is taken (see
        `fingerprints.of_data`); the same images read twice are listed once.

    Raises what `load_model` raises for a model that is not there.
    """
    described = [describe_data(dataset) for dataset in datasets]
    return {
        "chapter": chapter,
        "parameters": dict(parameters),
        "models": [file for given in dict.fromkeys(models) for file in _files_of_model(given)],
        "data": list({found["data"]: found for found in described}.values()),
        "code": _describe_code(),
        "versions": {"python": platform.python_version(), **_versions()},
        "system": f"{platform.system()} {platform.machine()}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _files_of_model(given: str) -> list[dict[str, str]]:
    """One entry a file: a model in shards has several."""
    found = []
    for path in files_of(locate(parse_spec(given))):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"given": given, "file": path.name, "sha256": digest})
    return found


def _describe_code() -> dict[str, Any]:
    """The version, the digest of the library's files and, in a clone, the commit."""
    commit = _git("rev-parse", "HEAD")
    return {
        "version": crate_analysis.__version__,
        "library": of_code(PACKAGE),
        "commit": commit,
        "changed_since": bool(_git("status", "--porcelain")) if commit else None,
    }


def _git(*words: str) -> str | None:
    """What git says of the clone that the library runs from; None outside of one."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE.parent), *words], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of an extra that is not installed
            continue
    return found
