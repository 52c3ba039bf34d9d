"""Where the shipped files lie; nothing else in the library knows."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "CRATE_ANALYSIS_DATA"
PACKAGED = "_data"
"""The folder in the package that a wheel copies `data/` to, see `setup.py`."""


def data_folder() -> Path:
    """The folder of shipped models and sample images.

    It is `data/` beside the package in a clone, and lies in the package where that was installed
    from a wheel, unless the environment variable CRATE_ANALYSIS_DATA names another. Raises
    FileNotFoundError where there is no such folder.
    """
    package = Path(__file__).resolve().parent
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        folder, source = Path(chosen).expanduser(), f"named by {DATA_VARIABLE}"
    elif (package.parent / "pyproject.toml").is_file():
        folder, source = package.parent / "data", "of a clone"
    else:
        folder, source = package / PACKAGED, "of the installed package"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no data folder {folder} ({source}); "
            f"set {DATA_VARIABLE} to the folder that holds the shipped models"
        )
    return folder
