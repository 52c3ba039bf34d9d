"""What a folder of runs came to, side by side: for a search over recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from crate_analysis.training.recipe import read_record


def read_runs(folder: Path) -> pd.DataFrame:
    """A row for each run below `folder`: its name, the settings that differ, its last log entry.

    A run that has not come to the end of its first epoch has no log, and NaN there. Raises
    FileNotFoundError where there is no run.
    """
    recipes = sorted(folder.rglob("recipe.json"))
    if not recipes:
        raise FileNotFoundError(f"{folder} holds no runs; name the folder that they were kept in")
    settings = pd.DataFrame([_flat(read_record(path)) for path in recipes])
    differing = [name for name in settings if settings[name].nunique(dropna=False) > 1]
    last = [last_entry(path.parent) for path in recipes]
    names = [path.parent.relative_to(folder).as_posix() for path in recipes]
    measured = pd.DataFrame(last, columns=list(dict.fromkeys(key for row in last for key in row)))
    return pd.concat(
        [
            pd.Series(names, name="run"),
            settings[differing],
            measured.drop(columns=differing, errors="ignore"),
        ],
        axis=1,
    )


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """The overrides beside the other settings."""
    return recipe | recipe.pop("overrides", {})


def last_entry(run: Path) -> dict[Any, Any]:
    """The last row of a run's log; nothing where its first epoch is not over.

    Raises ValueError for a log that is damaged.
    """
    log = run / "log.csv"
    if not log.exists():
        return {}
    try:
        row = pd.read_csv(log).iloc[-1]
        row[["step", "loss"]].astype(float)
    except (ValueError, LookupError, IsADirectoryError):  # pandas' own errors are ValueErrors
        raise ValueError(f"{log} is damaged; delete {run} to train it again") from None
    return row.to_dict()
