"""A grid of runs: each of some notebooks with each model, on each data set, with each seed.

    python workflow/grid.py gather params/grid.yml

puts the results of the finished runs of a grid into one table. The runs themselves are made by
Snakemake, by the rules in `Snakefile`. This module imports none of the library, so that asking what
is to be done takes no time.
"""

from __future__ import annotations

import argparse
import ast
import csv
import difflib
import hashlib
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(os.path.relpath(Path(__file__).resolve().parents[1]))
NOTEBOOKS = ROOT / "notebooks"
SET_BY_THE_GRID = ("models", "dataset", "seed", "output")
"""The parameters that a notebook must have to be run in a grid."""
KEYS = ("models", "datasets", "seeds", "notebooks", "folder")


@dataclass(frozen=True)
class Cell:
    """One run of one notebook."""

    notebook: Path
    models: tuple[str, ...]
    dataset: str
    seed: int
    own_parameters: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """What the notebook calls itself in the files that it writes."""
        return self.notebook.stem

    @property
    def parameters(self) -> dict[str, Any]:
        """All that the notebook is given, JSON-ready."""
        return {
            **self.own_parameters,
            "models": list(self.models),
            "dataset": self.dataset,
            "seed": self.seed,
            "output": str(self.folder),
        }

    @property
    def checkpoints(self) -> list[str]:
        """The models that are files, whose change makes the run anew."""
        names = (re.sub(r"@[^@/]*$", "", model) for model in self.models)
        return [name for name in names if Path(name).is_file()]


@dataclass(frozen=True)
class Grid:
    """All runs, and the folder that holds theirs and what is gathered of them."""

    folder: Path
    cells: tuple[Cell, ...]


def read_grid(path: Path) -> Grid:
    """The grid that a YAML file describes.

    Its keys are `models` (names or `FILE@ARCH`; a list of such for a run that compares them),
    `datasets`, `seeds`, `notebooks` (the name of a chapter or the path of a notebook -> its
    parameters: a mapping, a parameter file, or nothing), and perhaps `folder`, by default
    `results/NAME` for a file `NAME.yml`. Raises ValueError that names what is wrong and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"there is no grid file {path}; describe one as in params/grid.yml")
    try:
        content = _mapping(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, "the file")
        return _grid(path, content)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _grid(path: Path, content: dict[str, Any]) -> Grid:
    _check_names(content, KEYS, "key")
    folder = Path(str(content.get("folder", f"results/{path.stem}")))
    models = [_group(entry) for entry in _values(content, "models", (str, list))]
    datasets = _values(content, "datasets", str)
    seeds = _values(content, "seeds", int)
    notebooks = _mapping(content.get("notebooks") or {}, "notebooks")
    if not notebooks:
        raise ValueError("notebooks is empty; name at least one, such as 07-segmentation: {}")
    cells = []
    for name, given in notebooks.items():
        notebook = find_notebook(str(name))
        own = _parameters(given)
        for fixed in SET_BY_THE_GRID:
            if fixed in own:
                raise ValueError(f"{name}: {fixed} is set by the grid; take it out")
        declared = declared_parameters(notebook)
        _check_names({**own, **dict.fromkeys(SET_BY_THE_GRID)}, declared, f"{name}: parameter")
        for group, dataset, seed in itertools.product(models, datasets, seeds):
            place = (slug(notebook.stem), slug("+".join(group)), slug(dataset), f"seed-{seed}")
            cells.append(Cell(notebook, group, dataset, seed, own, folder.joinpath(*place)))
    return Grid(folder, tuple(cells))


def find_notebook(name: str) -> Path:
    """The notebook of a chapter, or at a path that ends in `.ipynb`."""
    path = Path(name) if name.endswith(".ipynb") else NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, [p.stem for p in path.parent.glob("*.ipynb")])
        hint = f"did you mean {near[0]!r}?" if near else "name a chapter or the path of a notebook"
        raise ValueError(f"there is no notebook {path}; {hint}")
    return path


def declared_parameters(notebook: Path) -> list[str]:
    """The names that a notebook's cell tagged `parameters` sets."""
    for cell in _cells(notebook):
        if "parameters" in cell["metadata"].get("tags", []):
            body = ast.parse("".join(cell["source"])).body
            nodes = (node for statement in body for node in ast.walk(statement))
            return [
                node.id
                for node in nodes
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            ]
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


def digest(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits for some bytes."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def slug(text: str) -> str:
    """A file name for a text; texts that would share one are told apart by a digest."""
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-.")
    if plain == text:
        return plain
    return f"{plain[-60:]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def gather(grid: Grid) -> None:
    """Write `cells.csv`, a row a run, and `results.csv`, a row a result, to the grid's folder.

    A run that failed or was not made yet has a row in the former only, with state `missing`.
    """
    cells, results = [], []
    for cell in grid.cells:
        place = {
            "notebook": cell.name,
            "models": " ".join(cell.models),
            "dataset": cell.dataset,
            "seed": cell.seed,
        }
        row = {**place, "folder": str(cell.folder.relative_to(grid.folder)), "state": "missing"}
        record = cell.folder / f"{cell.name}-provenance.json"
        if (cell.folder / "run.ipynb").exists():
            row["state"] = "done"
            if record.exists():
                row |= _row_of_record(json.loads(record.read_text(encoding="utf-8")))
            row |= _row_of_benchmark(cell.folder / "benchmark.tsv")
            found = cell.folder / f"{cell.name}-results.csv"
            if found.exists():
                with found.open(encoding="utf-8", newline="") as file:
                    results += [{**place, **one} for one in csv.DictReader(file)]
        cells.append(row)
    _write_csv(grid.folder / "cells.csv", cells)
    _write_csv(grid.folder / "results.csv", results)


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
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def _parameters(given: Any) -> dict[str, Any]:
    if not isinstance(given, str):
        return _mapping(given or {}, "parameters")
    path = Path(given) if Path(given).exists() else ROOT / given
    if not path.is_file():
        raise ValueError(f"there is no parameter file {given}")
    return _mapping(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, given)


def _group(entry: str | list) -> tuple[str, ...]:
    group = (entry,) if isinstance(entry, str) else tuple(entry)
    if not group or not all(isinstance(name, str) and name for name in group):
        raise ValueError(f"models: {entry!r} is neither a name nor a list of names")
    return group


def _values(content: dict[str, Any], key: str, kind: type | tuple[type, ...]) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or not values:
        raise ValueError(f"{key} must be a list with at least one entry, not {values!r}")
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key}: {value!r} is not of the right kind")
        if values.count(value) > 1:
            raise ValueError(f"{key}: {value!r} is named twice; name each once")
    return values


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping of names to values, not {value!r}")
    return value


def _check_names(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ValueError(
                f"{what} {name!r} is unknown: did you mean {near[0]!r}? "
                f"(there are {', '.join(known)})"
            )


def main() -> None:
    """Gather a grid's results; an error in its description is one line and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("command", choices=["gather"])
    parser.add_argument("grid", type=Path, help="its description, a YAML file")
    arguments = parser.parse_args()
    try:
        gather(read_grid(arguments.grid))
    except ValueError as error:
        sys.exit(f"{parser.prog}: error: {error}")


if __name__ == "__main__":
    main()
