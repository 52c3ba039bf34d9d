"""The results of a grid of runs, as `make grid` gathers them, and the order of two models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crate_analysis.study.findings import RESULTS

CASE = ["notebook", "quantity", "setting"]
"""What a model is compared in: one quantity of one chapter, on one data set with one seed."""


@dataclass(frozen=True)
class GridResults:
    """What a grid's folder holds.

    `runs` has a row for each run; `results` a row for each number of the runs that are done, with
    the columns of `CHAPTER-results.csv`, those of its run and `setting`; `models` are the labels of
    the models that were measured, in the grid's order.
    """

    runs: pd.DataFrame
    results: pd.DataFrame
    models: list[str]

    @property
    def done(self) -> pd.DataFrame:
        """The runs that are done."""
        return self.runs[self.runs.state == "done"]


def read_grid_results(folder: str | Path) -> GridResults:
    """The results in a grid's folder; FileNotFoundError where none were gathered there."""
    place = Path(folder).expanduser()
    if not (place / "cells.csv").exists():
        raise FileNotFoundError(f"{folder} holds no grid: make one with `make grid GRID=FILE`")
    texts = {name: str for name in ("notebook", "models", "dataset", "labels", "folder", "reason")}
    runs = pd.read_csv(place / "cells.csv", dtype=texts, keep_default_na=False, na_values=[""])
    try:
        texts |= {"model": str, "quantity": str}
        results = pd.read_csv(place / "results.csv", dtype=texts)
    except pd.errors.EmptyDataError:  # no run is done, or none has headline numbers
        results = pd.DataFrame(columns=["notebook", "models", "dataset", "seed", *RESULTS])
    several = runs.seed.nunique() > 1
    seeds = ", seed " + results.seed.astype(str) if several else ""
    results = results.assign(setting=results.dataset + seeds)
    measured = set(results.model)
    labels = dict.fromkeys(label for labels in runs.labels for label in json.loads(labels))
    return GridResults(runs, results, [label for label in labels if label in measured])


def model_order(results: pd.DataFrame, first: str, last: str) -> pd.DataFrame:
    """How far a model lies above another in each case that has both, with a sign.

    The columns are `CASE`, `difference` (of the means, first less last) and `units`, the difference
    in units of the two intervals' half-widths together: beyond 1 the intervals do not overlap.

    >>> rows = [("n", "IoU", "d", "a", 0.6, 0.5, 0.7), ("n", "IoU", "d", "b", 0.3, 0.25, 0.35)]
    >>> columns = [*CASE, "model", "mean", "low", "high"]
    >>> model_order(pd.DataFrame(rows, columns=columns), "a", "b").units.round(6).tolist()
    [2.0]
    """
    of = {
        name: results[results.model == name].drop_duplicates(CASE).set_index(CASE)
        for name in (first, last)
    }
    one, other = of[first].align(of[last], join="inner")
    difference = one["mean"] - other["mean"]
    widths = (one.high - one.low + other.high - other.low) / 2
    units = (difference / widths).where(widths.ne(0), np.sign(difference) * np.inf).fillna(0)
    return pd.DataFrame({"difference": difference, "units": units}).reset_index()


def stable_order(order: pd.DataFrame) -> pd.DataFrame:
    """Of each quantity that was measured in every setting: whether the order of two models holds.

    `order` is from `model_order`. The columns are `notebook`, `quantity`, `same` (one sign in every
    setting) and `clear` (and intervals that nowhere overlap).
    """
    settings = order.setting.nunique()
    rows = [
        (
            *case,
            bool((np.sign(of.difference).nunique() == 1) and of.difference.ne(0).all()),
            bool(of.units.abs().gt(1).all()),
        )
        for case, of in order.groupby(["notebook", "quantity"], sort=False)
        if len(of) == settings
    ]
    found = pd.DataFrame(rows, columns=["notebook", "quantity", "same", "clear"])
    return found.assign(clear=found.same & found.clear)
