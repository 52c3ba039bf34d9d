"""Where the shipped files lie; nothing else in the library knows."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "CRATE_ANALYSIS_DATA"


def data_folder() -> Path:
    """The folder of shipped models and sample pictures.

    It is `data/` beside the package, as in a clone with an editable install, unless the
    environment variable CRATE_ANALYSIS_DATA names another. Raises FileNotFoundError where there
    is no such folder.
    """
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        folder, source = Path(chosen).expanduser(), f"named by {DATA_VARIABLE}"
    else:
        folder, source = Path(__file__).resolve().parents[1] / "data", "of a clone"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no data folder {folder} ({source}); "
            f"set {DATA_VARIABLE} to the folder that holds the shipped models"
        )
    return folder
