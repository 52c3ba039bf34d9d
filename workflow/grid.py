"""A grid of runs: each of some notebooks with each model, on each data set, with each seed.

    python workflow/grid.py make params/grid.yml      all of it, and a page about what is done
    python workflow/grid.py gather params/grid.yml    the results of its finished runs as one table

The runs themselves are made by Snakemake, by the rules in `Snakefile`. Of the library, this module
imports at first what needs no torch, so that asking what is to be done takes no time.
"""

from __future__ import annotations

import argparse
import ast
import csv
import io
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os.path import expanduser, isdir, isfile
from pathlib import Path
from typing import Any

ROOT = Path(os.path.relpath(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(ROOT.resolve()))  # this clone's library, whatever is installed

from crate_analysis.names import digest, nearest, slug
from crate_analysis.parsing import parse_yaml
from crate_analysis.specs import ModelSpec, parse_spec, parse_specs
from crate_analysis.text import one_line

NOTEBOOKS = ROOT / "notebooks"
SET_BY_THE_GRID = ("models", "dataset", "seed", "output")
"""The parameters that a notebook must have to be run in a grid."""
KEYS = ("models", "datasets", "seeds", "notebooks", "folder")


@dataclass(frozen=True)
class Cell:
    """One run of one notebook."""

    notebook: Path
    name: str
    models: tuple[ModelSpec, ...]
    dataset: str
    seed: int
    own_parameters: Mapping[str, Any]
    folder: Path

    @property
    def labels(self) -> list[str]:
        """What tables and figures call the models."""
        return [spec.label for spec in self.models]

    @property
    def parameters(self) -> dict[str, Any]:
        """All that the notebook is given."""
        return {
            **self.own_parameters,
            "models": [str(spec) for spec in self.models],
            "dataset": self.dataset,
            "seed": self.seed,
            "output": str(self.folder),
        }

    @property
    def checkpoints(self) -> list[tuple[str, int, int]]:
        """The models that are files, with time and size: a change makes the run anew."""
        paths = (expanduser(spec.what) for spec in self.models)
        files = (
            file
            for path in paths  # of any form: these functions raise nothing
            for file in (sorted(map(str, Path(path).iterdir())) if isdir(path) else [path])
            if isfile(file)
        )
        return [(file, os.stat(file).st_mtime_ns, os.stat(file).st_size) for file in files]

    @property
    def run(self) -> Path:
        """The notebook as it ran."""
        return self.folder / "run.ipynb"

    @property
    def log(self) -> Path:
        """What the run said on its way."""
        return self.folder / "log.txt"


@dataclass(frozen=True)
class Grid:
    """All runs, and the folder that holds theirs and what is gathered of them."""

    folder: Path
    cells: tuple[Cell, ...]

    @property
    def page(self) -> Path:
        """The page about what is done."""
        return self.folder / "html" / "index.html"


def read_grid(path: Path) -> Grid:
    """The grid that a YAML file describes.

    Its keys are `models` (specs, see `crate_analysis.specs`; a list of such for a run that
    compares them), `datasets`, `seeds`, `notebooks` (the name of a chapter or the path of a
    notebook -> its parameters: a mapping, a parameter file, or nothing), and perhaps `folder`, by
    default `results/NAME` for a file `NAME.yml`. A model is called the same from here to every
    figure, no two alike. Raises ValueError that names what is wrong and the remedy.
    """
    if not isfile(path):
        raise ValueError(f"there is no grid file {path}; describe one as in params/grid.yml")
    try:
        return _grid(path, _mapping(_read_yaml(path) or {}, "the file"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {one_line(error, 500)}") from None


def _grid(path: Path, content: dict[str, Any]) -> Grid:
    _check_names(content, KEYS, "key")
    folder = _folder(content.get("folder"), path)
    models = [_group(entry) for entry in _values(content, "models", (str, list))]
    for entry in models:
        if models.count(entry) > 1:
            raise ValueError(f"models: {_joined(entry)!r} is named twice; name each once")
    parse_specs(dict.fromkeys(str(spec) for entry in models for spec in entry))
    datasets = _values(content, "datasets", str)
    seeds = _values(content, "seeds", int)
    for seed in seeds:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seeds: {seed} does not lie in 0 to 2**64 - 1")
    notebooks = _mapping(content.get("notebooks") or {}, "notebooks")
    if not notebooks:
        raise ValueError("notebooks is empty; name at least one, such as 02-compression: {}")
    stems = Counter(Path(name).stem for name in notebooks)
    cells = []
    for name, given in notebooks.items():
        notebook = find_notebook(name)
        own = _parameters(given)
        for fixed in SET_BY_THE_GRID:
            if fixed in own:
                raise ValueError(f"{name}: {fixed} is set by the grid; take it out")
        declared = declared_parameters(notebook)
        _check_names({**own, **dict.fromkeys(SET_BY_THE_GRID)}, declared, f"{name}: parameter")
        called = notebook.stem if stems[notebook.stem] == 1 else name.removesuffix(".ipynb")
        for group, dataset, seed in itertools.product(models, datasets, seeds):
            place = (slug(called), slug(_joined(group)), slug(dataset), f"seed-{seed}")
            cells.append(Cell(notebook, called, group, dataset, seed, own, folder.joinpath(*place)))
    return Grid(folder, tuple(cells))


def check(grid: Grid) -> None:
    """Load each model, find each data set, and look at each parameter before anything runs.

    Models on a hub are left to the runs, which fetch them. Raises ValueError on the first that
    cannot be used, as each of its runs would.
    """
    from crate_analysis import load_dataset, load_model
    from crate_analysis.specs import HUB_PREFIX
    from crate_analysis.study.parameters import check_value, literal_assignments

    for cell in {cell.notebook: cell for cell in grid.cells}.values():
        kinds = literal_assignments(parameters_source(cell.notebook))
        for name, value in cell.own_parameters.items():
            if kinds.get(name) is not None:
                _try(f"{cell.name}", check_value, name, value, kinds[name])
    for spec in dict.fromkeys(str(spec) for cell in grid.cells for spec in cell.models):
        if not parse_spec(spec).what.startswith(HUB_PREFIX):
            _try(f"models: {spec!r} cannot be used", load_model, spec)
    for dataset in dict.fromkeys(cell.dataset for cell in grid.cells):
        try:  # a notebook may read this split only, or the one that is the default
            load_dataset(dataset, "train")
        except (OSError, ValueError):
            _try(f"datasets: {dataset!r} cannot be used", load_dataset, dataset)


def _try(what: str, call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception as error:  # whatever it is, it would end each of the runs
        raise ValueError(f"{what}: {one_line(error, 500)}") from None


def find_notebook(name: str) -> Path:
    """The notebook of a chapter, or at a path that ends in `.ipynb`."""
    path = Path(name) if name.endswith(".ipynb") else NOTEBOOKS / f"{name}.ipynb"
    if not isfile(path):
        near = nearest(path.stem, (p.stem for p in path.parent.glob("*.ipynb")), 0.6)
        hint = f"did you mean {near!r}?" if near else "name a chapter or the path of a notebook"
        raise ValueError(f"there is no notebook {path}; {hint}")
    return path


def declared_parameters(notebook: Path) -> list[str]:
    """The names that a notebook's cell tagged `parameters` sets."""
    try:
        body = ast.parse(parameters_source(notebook)).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: its parameters are no Python: {error}") from None
    nodes = (node for statement in body for node in ast.walk(statement))
    return [
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def parameters_source(notebook: Path) -> str:
    """What stands in a notebook's cell tagged `parameters`."""
    for cell in _cells(notebook):
        if "parameters" in cell["metadata"].get("tags", []):
            return "".join(cell["source"])
    raise ValueError(f"{notebook} has no cell tagged 'parameters'")


def source_digest(notebook: Path) -> str:
    """Of all that a notebook says and does: its outputs do not count."""
    return digest(
        json.dumps([cell["cell_type"], cell["source"], cell["metadata"]], sort_keys=True).encode()
        for cell in _cells(notebook)
    )


def files_digest(paths: Iterable[Path]) -> str:
    """Of the files at these paths or in folders there, whatever their order and time stamps."""
    files = {
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
        and "__pycache__" not in file.parts
        and not file.name.startswith(".")
        and file.suffix != ".part"
    }
    return digest(
        part for file in sorted(files) for part in (os.fsencode(file.name), file.read_bytes())
    )


def gather(grid: Grid) -> None:
    """Write `cells.csv`, a row a run, and `results.csv`, a row a result, to the grid's folder.

    A run that failed or was not made yet has a row in the former only, with state `missing` and
    the reason. `labels` is a list in JSON.
    """
    cells, results = [], []
    for cell in grid.cells:
        place = {
            "notebook": cell.name,
            "models": _joined(cell.models),
            "dataset": cell.dataset,
            "seed": cell.seed,
        }
        row = {
            **place,
            "labels": json.dumps(cell.labels),
            "folder": str(cell.folder.relative_to(grid.folder)),
            "state": "missing",
            "reason": "",
        }
        if cell.run.exists():
            row["state"] = "done"
            record = cell.folder / f"{cell.notebook.stem}-provenance.json"
            if record.exists():
                row |= _row_of_record(json.loads(record.read_text(encoding="utf-8")))
            row |= _row_of_benchmark(cell.folder / "benchmark.tsv")
            results += [{**place, **one} for one in _results(cell)]
        else:
            row["reason"] = last_line(cell.log) or "it was not run yet"
        cells.append(row)
    _write_csv(grid.folder / "cells.csv", cells)
    _write_csv(grid.folder / "results.csv", results)


def _results(cell: Cell) -> list[dict[str, str]]:
    """What a run measured; a model goes by its label, also where a notebook writes its spec."""
    path = cell.folder / f"{cell.notebook.stem}-results.csv"
    if not path.exists():
        return []
    labels = {str(spec): spec.label for spec in cell.models}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row | {"model": labels.get(row["model"], row["model"])} for row in rows]


def last_line(log: Path) -> str:
    """The last line of a log that says anything: of a run that failed, the reason."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return one_line(next((line for line in reversed(lines) if line.strip()), ""))


def snakemake(target: str, path: Path, *options: Any) -> int:
    """Make a target of `Snakefile` for a grid file of any name; the exit status."""
    config = Path(".snakemake", "grids", f"{slug(str(path))}.json")  # `--config` would parse a name
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"grid": str(path)}), encoding="utf-8")
    command: list[Any] = [sys.executable, "-m", "snakemake", "--snakefile"]
    command += [ROOT / "workflow" / "Snakefile", *options, "--configfile", config, "--", target]
    return subprocess.run(command).returncode


def make(path: Path, cores: str) -> None:
    """Make all runs of a grid, and a page of those that are done, even where others failed."""
    grid = read_grid(path)
    if not all(cell.run.exists() for cell in grid.cells):
        check(grid)
    failed = [snakemake(target, path, "--cores", cores) for target in ("cells", "summary")]
    missing = [cell for cell in grid.cells if not cell.run.exists()]
    done = len(grid.cells) - len(missing)
    for cell in missing:
        print(f"missing: {cell.folder}: {last_line(cell.log) or 'not run yet'} ({cell.log})")
    print(f"{done} of {len(grid.cells)} runs are done", end="")
    print(f"; the page about them: {grid.page}" if grid.page.exists() else "; there is no page yet")
    sys.exit(max(failed))


def _row_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "finished": record["finished"],
        "commit": record["code"]["commit"],
        "library": record["code"]["library"],
        "checkpoints": " ".join(one["sha256"][:16] for one in record["models"]),
        "data": " ".join(one["data"] for one in record["data"]),
    }


def _row_of_benchmark(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        measured = next(csv.DictReader(file, delimiter="\t"))
    return {"seconds": measured["s"], "memory_mb": measured["max_rss"]}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text.getvalue(), encoding="utf-8")
    os.replace(part, path)


def _cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [{"metadata": {}, **cell} for cell in cells]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{notebook} is no notebook: it cannot be read as JSON") from None


def _read_yaml(path: Path) -> Any:
    return parse_yaml(path.read_text(encoding="utf-8"))


def _parameters(given: Any) -> dict[str, Any]:
    if not isinstance(given, str):
        return _mapping(given or {}, "parameters")
    path = Path(expanduser(given)) if isfile(expanduser(given)) else ROOT / given
    if not isfile(path):
        raise ValueError(f"there is no parameter file {given}")
    return _mapping(_read_yaml(path) or {}, given)


def _folder(given: Any, path: Path) -> Path:
    if given is None:
        return Path("results", slug(path.stem))
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"folder: {given!r} is no name; leave the key out or name a folder")
    if not given.isprintable() or set(given) & set("{}"):
        raise ValueError(f"folder: {given!r} holds braces or line breaks; name it without")
    return Path(expanduser(given))


def _group(entry: str | list) -> tuple[ModelSpec, ...]:
    group = [entry] if isinstance(entry, str) else entry
    if not group or not all(isinstance(name, str) and name.strip() for name in group):
        raise ValueError(f"models: {entry!r} is neither a name nor a list of names")
    return tuple(parse_specs(group))


def _joined(models: Iterable[ModelSpec]) -> str:
    return " + ".join(spec.label for spec in models)


def _values(content: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} must be a list with at least one entry, not {values!r}")
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise ValueError(f"{key}: {value!r} is not of the right kind")
        if values.count(value) > 1:
            raise ValueError(f"{key}: {value!r} is named twice; name each once")
    return values


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping of names to values, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{what}: the name {name!r} is no text; put it in quotes")
    return value


def _check_names(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            near = nearest(name, known, 0.0)
            hint = f"did you mean {near!r}? " if near else ""
            raise ValueError(
                f"{what} {name!r} is unknown: {hint}(there are {', '.join(known) or 'none'})"
            )


def main() -> None:
    """Make or gather a grid; an error in its description is one line and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("command", choices=["make", "gather"])
    parser.add_argument("grid", type=Path, help="its description, a YAML file")
    parser.add_argument("--cores", default="all", help="how many runs at a time")
    arguments = parser.parse_args()
    try:
        if arguments.command == "make":
            make(arguments.grid, arguments.cores)
        else:
            gather(read_grid(arguments.grid))
    except ValueError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: interrupted; what is done stays")


if __name__ == "__main__":
    main()
