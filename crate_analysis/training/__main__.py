"""The command line: train a recipe, compare runs, ship one with its card, and probe models."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from crate_analysis.distributed import joined
from crate_analysis.models import load_models
from crate_analysis.paths import data_folder
from crate_analysis.training.experiments import (
    FailedRunError,
    read_experiment,
    run_experiment,
    write_table,
)
from crate_analysis.training.loop import Execution
from crate_analysis.training.measured import N_IMAGES, TABLE, measure_experiment
from crate_analysis.training.objectives import OBJECTIVES, Objective
from crate_analysis.training.recipe import Optimizer, Precision, Schedule
from crate_analysis.training.runs import read_runs
from crate_analysis.training.ship import ship
from crate_analysis.training.transfer import accuracies, load_splits, probe_hits
from crate_analysis.writing import write_text


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; an error in what was asked for is one line and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ModuleNotFoundError, FailedRunError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crate_analysis.training", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True)
    formatter = argparse.ArgumentDefaultsHelpFormatter

    for objective in OBJECTIVES.values():
        _add_training(commands, objective, formatter)
    publish = commands.add_parser(
        "ship",
        help="write a finished run's model and card to data/",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    publish.set_defaults(run=_ship)
    publish.add_argument("folder", type=Path, help="of a finished run")
    publish.add_argument("name", help="of the shipped model, such as crate-creatures")
    publish.add_argument(
        "--snapshots",
        type=int,
        default=0,
        help="also ship so many snapshots from before the end, the initial one first",
    )
    publish.add_argument(
        "--gate", type=float, help="least accuracy that was declared for a model that is evidence"
    )
    publish.add_argument(
        "--replace", action="store_true", help="the shipped model of this name, if there is one"
    )
    _add_cache(publish)

    batch, measure = (
        commands.add_parser(name, help=text, formatter_class=formatter, allow_abbrev=False)
        for name, text in (
            ("experiment", "run all trainings that a file describes, or go on with them"),
            ("measure", "measure an experiment's finished runs, as its file's `measure` says"),
        )
    )
    for one in (batch, measure):
        one.add_argument("file", type=Path, help="YAML, see crate_analysis.training.experiments")
        one.add_argument("folder", type=Path, help="where the runs are kept")
        _add_cache(one)
    batch.set_defaults(run=_experiment)
    batch.add_argument(
        "--jobs", type=_positive, help="runs at a time; by default as many as there are cores for"
    )
    batch.add_argument("--shard", default="1/1", help="k/n: the k-th of n parts, for a cluster")
    batch.add_argument("--status", action="store_true", help="only write and show the table")
    _add_execution(batch, 1)

    measure.set_defaults(run=_measure)
    measure.add_argument(
        "--table", type=Path, help="a copy of FOLDER/measured.csv, such as one to ship"
    )
    measure.add_argument("--images", type=_positive, default=N_IMAGES, help="of the split val")
    measure.add_argument("--jobs", type=_positive, default=1, help="runs at a time")
    measure.add_argument("--threads", type=_positive, default=1, help="of each run")

    compare = commands.add_parser(
        "compare", help="write what a folder of runs came to as CSV", allow_abbrev=False
    )
    compare.set_defaults(run=_compare)
    compare.add_argument("folder", type=Path, help="that holds the runs' folders")
    compare.add_argument("table", type=Path, help="the CSV file")

    probe = commands.add_parser(
        "probe",
        help="write as CSV how well classes that models were not trained on are read off them",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    probe.set_defaults(run=_probe)
    probe.add_argument("models", nargs="+", help="shipped names, FILE or FILE@ARCH")
    probe.add_argument("table", type=Path, help="the CSV file")
    probe.add_argument("--dataset", default="creatures-exotic", help="with a class an image")
    probe.add_argument("--image-size", type=int, default=72, help="side in pixels")
    probe.add_argument("--n-train", type=int, default=2_400, help="images to learn from")
    probe.add_argument("--n-dev", type=int, default=400, help="images to choose settings on")
    probe.add_argument("--n-val", type=int, default=600, help="images to report")
    probe.add_argument(
        "--sizes", type=int, nargs="+", default=[300, 600, 1200, 2400], help="of training sets"
    )
    _add_cache(probe)
    return parser


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/images"), help="where rendered images are kept"
    )


def _add_training(commands: Any, objective: Objective, formatter: Any) -> None:
    """A subcommand with an option for each setting of its kind of recipe."""
    learn = commands.add_parser(
        objective.command,
        help=f"{objective.recipe.objective} training, or go on where a run stopped",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    learn.set_defaults(run=partial(_train, objective))
    learn.add_argument("folder", type=Path, help="where the run is kept; the same one resumes it")
    learn.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        dest="overrides",
        help="config fields that differ from the architecture's",
    )
    choices: dict[str, tuple[str, ...]] = {
        "optimizer": get_args(Optimizer),
        "precision": get_args(Precision),
        "schedule": get_args(Schedule),
    }
    for field in dataclasses.fields(objective.recipe):
        if field.name == "overrides":
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            learn.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help="default: %(default)s",
            )
        else:
            learn.add_argument(
                flag,
                type=type(field.default),
                default=field.default,
                choices=choices.get(field.name),
                help="default: %(default)s",
            )
    _add_execution(learn, torch.get_num_threads())
    _add_cache(learn)


def _add_execution(learn: argparse.ArgumentParser, threads: int) -> None:
    learn.add_argument("--device", default="cpu", help="such as cuda")
    learn.add_argument(
        "--threads", type=_positive, default=threads, help="of each training on a CPU"
    )
    learn.add_argument(
        "--accumulate", type=int, default=1, help="forward and backward rounds for one step"
    )
    learn.add_argument("--compile", action="store_true", help="compile the networks")
    learn.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    learn.add_argument("--snapshots", type=int, default=8, help="how many, from start to end")


def _positive(text: str) -> int:
    """A whole number of at least 1, as argparse wants it."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _execution(options: argparse.Namespace, device: torch.device) -> Execution:
    return Execution(
        device, options.accumulate, options.compile, options.save_every, options.snapshots
    )


def _experiment(options: argparse.Namespace) -> None:
    experiment = read_experiment(options.file)
    if options.status:
        options.folder.mkdir(parents=True, exist_ok=True)
        print(write_table(experiment, options.folder).to_string(index=False))
        return
    part, slash, parts = options.shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise ValueError(f"--shard {options.shard}: write k/n, such as 1/4")
    table = run_experiment(
        experiment,
        options.folder,
        options.cache,
        _execution(options, torch.device(options.device)),
        options.jobs,
        options.threads,
        (int(part), int(parts)),
    )
    print(table.to_string(index=False))


def _train(objective: Objective, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    values = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(objective.recipe)
    }
    values["overrides"] = dict(_assignment(text) for text in options.overrides)
    recipe = objective.recipe(**values)
    with joined(options.device) as device:
        objective.train(recipe, options.folder, options.cache, _execution(options, device))


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write FIELD=VALUE, such as depth=4")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            pass
    return name, value


def _measure(options: argparse.Namespace) -> None:
    table = measure_experiment(
        read_experiment(options.file),
        options.folder,
        options.cache,
        options.images,
        options.jobs,
        options.threads,
    )
    if options.table:
        write_text(options.table, (options.folder / TABLE).read_text(encoding="utf-8"))
    last = table[table.step == table.groupby(["cell", "seed"]).step.transform("max")]
    print(last.pivot_table(index="quantity", columns="cell", values="mean", sort=False).round(3))


def _compare(options: argparse.Namespace) -> None:
    write_text(options.table, read_runs(options.folder).to_csv(index=False))


def _probe(options: argparse.Namespace) -> None:
    splits = load_splits(
        options.dataset,
        options.image_size,
        options.n_train,
        options.n_dev,
        options.n_val,
        options.cache,
    )
    hits = probe_hits(load_models(options.models), splits, options.sizes)
    write_text(options.table, accuracies(hits).to_csv(index=False))


def _ship(options: argparse.Namespace) -> None:
    ship(
        options.folder,
        options.name,
        data_folder(),
        options.cache,
        options.snapshots,
        options.gate,
        options.replace,
    )


if __name__ == "__main__":
    main()
