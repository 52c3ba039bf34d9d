"""All runs of an experiment, described by one file, and a batch of them that looks after itself.

A file says what is asked, what was declared before the first run, and which runs there are: cells
(systems) times seeds. Where a rate is searched, each cell first has short runs that are compared on
the `dev` split, and its runs take the best. Each run is a process of its own, so that it may be
killed, and goes on where it stopped when the experiment is started again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crate_analysis.distributed import end_with_parent, process_context
from crate_analysis.models.config import ModelConfig
from crate_analysis.models.registry import arch_config
from crate_analysis.parsing import parse_yaml
from crate_analysis.training.images import cached_images
from crate_analysis.training.loop import FINISHED, Execution, is_training
from crate_analysis.training.objectives import OBJECTIVES
from crate_analysis.training.recipe import Recipe
from crate_analysis.training.runs import last_entry
from crate_analysis.writing import write_text

TABLE = "runs.csv"
MEASURES = ("accuracy", "maps", "objects", "parts", "edits", "sparsity", "neighbours")
"""What an experiment's `measure` may name: functions of `measured`."""
LOG = "run.log"


class FailedRunError(RuntimeError):
    """Some runs of an experiment ended with an error."""


@dataclass(frozen=True)
class Search:
    """Short runs of each cell, of which the best gives the cell its value of one setting."""

    values: tuple[float, ...]
    setting: str = "learning_rate"
    by: str = "dev_accuracy"
    """Column of the log whose last entry is compared; the greatest is best."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the short runs, where they differ from the cell's: above all fewer `epochs`."""
    like: Mapping[str, str] = field(default_factory=dict)
    """Cells that are not searched themselves, each with the one whose value it takes."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("search: values are what each cell tries, such as [1e-3, 2e-3]")
        _mapping("search: settings", self.settings)
        _mapping("search: like", self.like)


@dataclass(frozen=True)
class Run:
    """One training of an experiment: its folder below the experiment's, and its recipe."""

    cell: str
    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Experiment:
    """What is asked, what was declared, and the runs; see `read_experiment`."""

    name: str
    question: str
    declared: Mapping[str, str]
    cells: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    objective: str = "supervised"
    common: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None
    measure: tuple[str, ...] = ()
    """What `measured.measure_experiment` measures on each run, of `MEASURES`."""
    along: bool = False
    """Whether on every snapshot of a run, too."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective: there is no {self.objective!r}, only {', '.join(OBJECTIVES)}"
            )
        for name in ("declared", "common", "cells"):
            _mapping(name, getattr(self, name))
        for name in self.measure:
            if name not in MEASURES:
                raise ValueError(f"measure: there is no {name!r}, only {', '.join(MEASURES)}")
        if not isinstance(self.along, bool):
            raise ValueError(f"along: write true or false, not {self.along!r}")
        if not self.cells or not self.seeds:
            raise ValueError("cells and seeds: an experiment has at least one of each")
        for seed in self.seeds:
            if self.seeds.count(seed) > 1:
                raise ValueError(f"seeds: {seed} is given twice")
        for cell in self.cells:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", str(cell)) or cell == "search":
                raise ValueError(f"cells: {cell!r} cannot be a cell's name: it is one of a folder")
            _mapping(f"cell {cell}", self.cells[cell])
            self.recipe(cell)
            self.search_runs(cell)
        for cell, other in self.search.like.items() if self.search else ():
            if cell not in self.cells or not self.search_runs(other):
                raise ValueError(
                    f"search: like: {cell}: {other} must name a cell, and one that is searched"
                )

    def recipe(self, cell: str, **changes: Any) -> Recipe:
        """The recipe of a cell with some settings changed.

        Raises ValueError that names the cell for a setting that is unknown or out of range.
        """
        parts = (self.common, self.cells[cell], changes)
        settings = {name: value for part in parts for name, value in part.items()}
        overrides = [
            _mapping("overrides", part["overrides"]) for part in parts if "overrides" in part
        ]
        if overrides:
            settings["overrides"] = {k: v for part in overrides for k, v in part.items()}
        kind = OBJECTIVES[settings.pop("objective", self.objective)].recipe
        unknown = sorted(set(settings) - {one.name for one in fields(kind)})
        if unknown:
            raise ValueError(f"cell {cell}: a {kind.objective} recipe has no {', '.join(unknown)}")
        try:
            recipe = kind(**settings)
            config_of(recipe)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cell {cell}: {error}") from None
        return recipe

    def search_runs(self, cell: str) -> list[Run]:
        """The short runs of a cell's search, none where it has the setting without one."""
        if (
            self.search is None
            or cell not in self.cells
            or cell in self.search.like
            or self.search.setting in self.cells[cell]
        ):
            return []
        setting, changes = self.search.setting, self.search.settings
        return [
            Run(
                cell,
                f"search/{cell}/{setting}={value:g}",
                self.recipe(cell, **{**changes, setting: value}),
            )
            for value in self.search.values
        ]

    def main_runs(self, cell: str, folder: Path) -> list[Run]:
        """A cell's runs, one for each seed; none as long as its search is not finished."""
        found: dict[str, Any] = {}
        like = self.search.like if self.search else {}
        searches = self.search_runs(like.get(cell, cell))
        if searches and self.search is not None:
            if not all(is_finished(folder / run.name) for run in searches):
                return []
            scores = [last_entry(folder / run.name)[self.search.by] for run in searches]
            found = {self.search.setting: self.search.values[scores.index(max(scores))]}
        return [
            Run(cell, f"{cell}/seed-{seed}", self.recipe(cell, **found, seed=seed))
            for seed in self.seeds
        ]

    def runs(self, folder: Path) -> list[Run]:
        """All runs that can be told now: the searches, then the first seed of every cell."""
        searches = [run for cell in self.cells for run in self.search_runs(cell)]
        by_seed = zip_longest(*(self.main_runs(cell, folder) for cell in self.cells))
        return [*searches, *(run for run in chain(*by_seed) if run is not None)]

    def waiting(self, folder: Path) -> list[str]:
        """The cells whose runs wait for their search."""
        return [cell for cell in self.cells if not self.main_runs(cell, folder)]


def config_of(recipe: Recipe) -> ModelConfig:
    """The network that a recipe trains. Raises ValueError where there is none such."""
    return arch_config(recipe.arch).override(**recipe.overrides)


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder has come to its end."""
    return (folder / FINISHED).is_file()


def read_experiment(path: Path) -> Experiment:
    """The experiment that a YAML file describes.

    The file's keys are

    - `question`, a sentence, and `declared`: by its name (such as `number`, `layer`, `gate` and
      `success`) each sentence that was settled before the first run;
    - `cells`: for each system the settings of its recipe, `common`: those that all share, and
      `objective` (default: supervised), which a cell may change;
    - `seeds`: of the runs of each cell;
    - `measure`: what `measure_experiment` measures on each run, and `along: true` to do so on every
      snapshot;
    - `search`, or none: `values` that each cell tries of a `setting` (default: learning_rate) with
      the short runs' own `settings`, and the log's column `by` which they are compared (default:
      dev_accuracy). A cell that names the setting itself is not searched, nor is one that `like`
      gives the value of another cell.

    Raises FileNotFoundError, and ValueError that names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text in UTF-8") from None
    try:
        content = parse_yaml(text)
        if not isinstance(content, dict):
            raise ValueError("it holds no keys such as cells and seeds")
        search = content.pop("search", None)
        if search is not None:
            search = _made(
                Search, {**_mapping("search", search), "values": _values(search)}, "search"
            )
        seeds = _listed("seeds", content.pop("seeds", []), int)
        measure = _words("measure", content.pop("measure", []))
        given = {"name": path.stem, **content, "seeds": seeds, "search": search}
        given["measure"] = measure
        return _made(Experiment, given, "the file")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}: write keys and values")
    return given


def _values(search: Mapping[str, Any]) -> tuple[float, ...]:
    return _listed("search: values", search.get("values", []), float)


def _listed(name: str, given: Any, kind: type) -> tuple[Any, ...]:
    """A list of numbers as a tuple; ValueError that names it for anything else."""
    allowed = (int,) if kind is int else (int, float)
    if not isinstance(given, list) or not all(type(one) in allowed for one in given):
        raise ValueError(f"{name}: write a list of numbers, not {given!r}")
    return tuple(given)


def _words(name: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError(f"{name}: write a list of words, not {given!r}")
    return tuple(given)


def _made(kind: Any, content: Mapping[str, Any], what: str) -> Any:
    known = [one.name for one in fields(kind)]
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise ValueError(f"{what} has no {', '.join(map(str, unknown))}; it has {', '.join(known)}")
    return kind(**content)


def run_experiment(
    experiment: Experiment,
    folder: Path,
    cache: Path,
    execution: Execution | None = None,
    jobs: int | None = None,
    threads: int = 1,
    shard: tuple[int, int] = (1, 1),
) -> pd.DataFrame:
    """Start all runs of an experiment that are not finished, and see them to their end.

    Parameters
    ----------
    experiment : as `read_experiment` gives it.
    folder : where the runs are kept; the same one resumes them.
    cache : where rendered images are kept.
    execution : on what device, how often it is saved and so on.
    jobs : how many runs at a time; by default as many as there are cores for, and one on a GPU.
    threads : of each run.
    shard : (k, n) to do the k-th of n parts of the runs, counted from 1: one command of a cluster.
        A cell's runs are left open until the search that they wait for is finished.

    Returns the table that `folder/runs.csv` holds, see `outcome`. It is written anew whenever a run
    ends. Raises FailedRunError where runs failed, after all others are done.
    """
    execution = execution or Execution()
    jobs = jobs or _jobs(execution.device, threads)
    folder.mkdir(parents=True, exist_ok=True)
    context: Any = process_context()
    running: dict[str, Any] = {}
    failed: dict[str, str] = {}
    while True:
        for name, process in list(running.items()):
            if process.exitcode is not None:
                del running[name]
                # another batch may have begun it at the same moment: then it is that one's
                elsewhere = is_finished(folder / name) or is_training(folder / name)
                if process.exitcode and not elsewhere:
                    failed[name] = _reason(folder / name / LOG, process.exitcode)
                write_table(experiment, folder, failed)
        ready = [
            run
            for run in _share(experiment, folder, shard)
            if not (run.name in running or run.name in failed or is_finished(folder / run.name))
        ]
        free = [run for run in ready if not is_training(folder / run.name)]  # by another batch
        for run in free[: jobs - len(running)]:
            _images(run.recipe, cache)
            process = context.Process(
                target=_train, args=(run.recipe, folder / run.name, cache, execution, threads)
            )
            process.start()
            running[run.name] = process
            print(f"{run.name} started, {len(ready) - 1} to come", file=sys.stderr, flush=True)
        if not running and not ready:
            break
        time.sleep(0.5)
    table = write_table(experiment, folder, failed)
    if failed:
        raise FailedRunError(
            "; ".join(f"{name} failed: {reason}" for name, reason in failed.items())
        )
    return table


def outcome(experiment: Experiment, folder: Path) -> pd.DataFrame:
    """What became of the runs so far: a row each.

    Columns: `run`, its folder; `cell`, `seed`, `searched` (whether it is one of the short runs that
    a setting is chosen by), `learning_rate`, `steps`; `state`: finished, training, stopped (it goes
    on when the experiment is started again) or open; then the last entry of its log.
    """
    rows = []
    for run in experiment.runs(folder):
        where = folder / run.name
        rows.append(
            {
                "run": run.name,
                "cell": run.cell,
                "seed": run.recipe.seed,
                "searched": run.name.startswith("search/"),
                "learning_rate": run.recipe.learning_rate,
                "steps": run.recipe.steps,
                "state": _state(where),
                **{
                    name: value
                    for name, value in last_entry(where).items()
                    if name != "learning_rate"
                },
            }
        )
    return pd.DataFrame(rows)


def write_table(
    experiment: Experiment, folder: Path, failed: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Write `outcome` to `folder/runs.csv`, with the reasons of runs that failed just now."""
    table = outcome(experiment, folder)
    for name, reason in (failed or {}).items():
        table.loc[table["run"] == name, "state"] = f"failed: {reason}"
    write_text(folder / TABLE, table.to_csv(index=False))
    return table


def _state(folder: Path) -> str:
    if is_finished(folder):
        return "finished"
    if is_training(folder):
        return "training"
    return "stopped" if (folder / "checkpoint.pt").exists() else "open"


def _share(experiment: Experiment, folder: Path, shard: tuple[int, int]) -> list[Run]:
    """The runs of one of n parts; which one a run belongs to does not depend on what is done."""
    part, parts = shard
    if not 1 <= part <= parts:
        raise ValueError(f"shard {part}/{parts} must be from 1/{parts} to {parts}/{parts}")
    searches = [run.name for cell in experiment.cells for run in experiment.search_runs(cell)]
    mains = [f"{cell}/seed-{seed}" for seed in experiment.seeds for cell in experiment.cells]
    mine = {*searches[part - 1 :: parts], *mains[part - 1 :: parts]}
    return [run for run in experiment.runs(folder) if run.name in mine]


def _jobs(device: torch.device, threads: int) -> int:
    if device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // threads)


def _images(recipe: Recipe, cache: Path) -> None:
    """Render what a run needs, before it starts, so that two do not render the same images."""
    cached_images(recipe, config_of(recipe).image_size, cache)


def _train(recipe: Recipe, folder: Path, cache: Path, execution: Execution, threads: int) -> None:
    """In a process of its own, which ends with the one that started it."""
    end_with_parent()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    torch.set_num_threads(threads)
    try:
        OBJECTIVES[recipe.objective].train(recipe, folder, cache, execution)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")


def _reason(log: Path, exitcode: int) -> str:
    """The last line that a run wrote, or by what it was ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    said = [line.strip() for line in lines if line.strip()]
    if exitcode < 0:
        return f"ended by signal {-exitcode}, see {log}"
    return f"{said[-1].removeprefix('error: ')}, see {log}" if said else f"see {log}"
