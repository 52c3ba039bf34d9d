"""What the notebooks need beyond measuring: checked parameters, tables, and what a run leaves.

papermill only warns about a parameter that a notebook does not have, and takes any value. The
cell after the parameters cell therefore says what each may be::

    from crate_analysis.notebook import check_parameters
    parameters = check_parameters(globals(), models=list[str], dataset=str, seed=int, output=str)

A run leaves in the folder `output` its figures (`save_figure`), its headline numbers
(`save_results`), which a grid of runs is summed up by, and a record of how they came about
(`show_provenance`), which is shown at the foot of the page.
"""

from __future__ import annotations

import ast
import json
import os
import reprlib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from crate_analysis.datasets import SampleDataset
from crate_analysis.names import nearest
from crate_analysis.provenance import provenance
from crate_analysis.study.parameters import INJECTED_PATHS
from crate_analysis.writing import write_text

TABLE_CLASS = "table"  # as the book's theme calls the tables it lays out

RESULTS = ["model", "quantity", "mean", "low", "high"]
"""The columns of what `save_results` writes."""

_INJECTED = "# Parameters\n"  # the first line of the cell that papermill adds


def table(
    frame: pd.DataFrame, formats: Mapping[str, str] | None = None, missing: str = ""
) -> Styler:
    """A frame for the page: its index as plain columns, laid out as the book's other tables.

    ``formats`` gives the format of some columns, such as ``{"share": "{:.0%}"}``, and
    ``missing`` stands for what is not there.
    """
    style = frame.reset_index().style.hide(axis="index").format(dict(formats or {}), na_rep=missing)
    return style.set_table_attributes(f'class="{TABLE_CLASS}"')


def save_figure(figure: Figure, frame: pd.DataFrame, folder: str, name: str) -> None:
    """Write `name.svg` and, as `name.csv`, the numbers or choices behind the figure to `folder`.

    A relative `folder` is under the working directory; it is made where it is missing. Each file
    appears whole or not at all.
    """
    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    picture, numbers = (target / f"{name}{suffix}.part" for suffix in (".svg", ".csv"))
    figure.savefig(picture, format="svg", bbox_inches="tight")
    frame.to_csv(numbers, index=False)
    for part in (picture, numbers):
        os.replace(part, part.with_suffix(""))


def save_results(
    rows: Iterable[tuple[str, str, float, float, float]], folder: str, chapter: str
) -> None:
    """Write a chapter's headline numbers as `CHAPTER-results.csv` to `folder`.

    A row is a model (or a baseline), what was measured, its mean and the ends of its interval,
    such as ``("crate-creatures", "best-head IoU", *mean_interval(values))``. Rows of many runs are
    put side by side by their first two entries, so these must not depend on what comes out.
    Raises ValueError where two rows are of the same.
    """
    frame = pd.DataFrame(list(rows), columns=RESULTS)
    twice = frame[frame.duplicated(["model", "quantity"])]
    if len(twice):
        raise ValueError(f"two results are of {tuple(twice.iloc[0][['model', 'quantity']])}")
    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / f"{chapter}-results.csv", frame.to_csv(index=False))


def show_provenance(
    chapter: str,
    parameters: Mapping[str, Any],
    models: Sequence[str],
    datasets: Iterable[SampleDataset],
) -> Styler:
    """How the page came about, as a table; the whole record goes to `CHAPTER-provenance.json`.

    The folder is the parameter `output`. For the other arguments see `provenance`.
    """
    record = provenance(chapter, parameters, models, datasets)
    target = Path(parameters["output"]).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / f"{chapter}-provenance.json", json.dumps(record, indent=2) + "\n")
    code = record["code"]
    commit = f", commit {code['commit'][:12]}" if code["commit"] else ""
    rows = {
        "finished": record["finished"].replace("T", " ").replace("+00:00", " UTC"),
        "code": f"crate-analysis {code['version']}{commit}"
        + (" with changes" if code["changed_since"] else "")
        + f", library {code['library']}",
        "parameters": ", ".join(f"{name} = {value!r}" for name, value in parameters.items()),
        "checkpoints": ", ".join(
            f"{one['given']} (SHA-256 {one['sha256'][:16]}…)" for one in record["models"]
        ),
        "data": ", ".join(
            f"{one['dataset']}, {one['pictures']} pictures"
            + (f" at {one['image_size']} px" if one["image_size"] else "")
            + f" (fingerprint {one['data']})"
            for one in record["data"]
        ),
        "versions": ", ".join(f"{name} {found}" for name, found in record["versions"].items())
        + f"; {record['system']}",
    }
    shown = pd.DataFrame({"value": rows}).rename_axis("what")
    return table(shown).format(escape="html").hide(axis="columns")


class ParameterError(ValueError):
    """A parameter that the notebook cannot be run with."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython: how the check works would only bury what is wrong."""
        return [f"{type(self).__name__}: {self}"]


def check_parameters(namespace: Mapping[str, Any], **kinds: Any) -> dict[str, Any]:
    """The parameters by name; ParameterError (a ValueError) on an unknown, missing or unfit one.

    ``namespace`` is the notebook's ``globals()``; ``kinds`` gives each parameter's kind, such as
    ``int``, ``list[str]`` or ``int | None``. An ``int`` serves as a ``float``; a ``bool`` is not
    an ``int``.

    Unknown names are looked for where parameters are set, in the session's latest parameters cell
    and in the cell that papermill added, so that variables of later cells are never mistaken for
    parameters when this check is run again.
    """
    for name in _assigned_parameters(namespace, kinds):
        if name not in (*kinds, *INJECTED_PATHS):
            near = nearest(name, kinds, 0.0)
            hint = f"did you mean {near!r}?" if near else "this notebook has none"
            raise ParameterError(
                f"unknown parameter {name!r}: {hint} (this notebook has {', '.join(kinds)})"
            )
    for name, kind in kinds.items():
        if name not in namespace:
            raise ParameterError(f"parameter {name!r} is missing: set it to {_spell(kind)}")
        value = namespace[name]
        if not _fits(value, kind):
            raise ParameterError(
                f"parameter {name!r} must be {_spell(kind)}, not {reprlib.repr(value)}"
                f" ({type(value).__name__}){_remedy(name, value, kind)}"
            )
    return {name: namespace[name] for name in kinds}


def check_pictures(count: int) -> None:
    """ParameterError where a chapter that compares pictures has fewer than two to measure."""
    if count < 2:
        raise ParameterError(
            f"pictures that can be measured here: {count}; this chapter compares pictures and "
            "needs at least 2: raise n_images, or give a dataset with more"
        )


def _assigned_parameters(namespace: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[str]:
    """Names set by the cells that set parameters, as IPython's record of the session has them."""
    declared, injected = [], []
    for source in namespace.get("In", ()):
        names = _assignments(source, literals_only=not source.startswith(_INJECTED))
        if source.startswith(_INJECTED):
            injected = names
        elif not kinds.keys().isdisjoint(names):
            declared = names
    return [*declared, *injected]


def _assignments(source: str, literals_only: bool) -> list[str]:
    """Names that a cell sets, when setting names (to plain values) is all it does; else none."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    names = []
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names.append(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names.append(name)
            case _:
                return []
        try:
            ast.literal_eval(value)
        except ValueError:
            if literals_only:
                return []
    return names


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind: a class, list[...], dict[..., ...] or a union of them."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, args[0]) and _fits(item, args[1]) for key, item in value.items()
        )
    if kind is None or kind is type(None):
        return value is None
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _spell(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _remedy(name: str, value: Any, kind: Any) -> str:
    """How to write a list on papermill's command line, where -p can only give a single value."""
    if get_origin(kind) is not list or isinstance(value, (list, dict)):
        return ""
    items = str(value).removeprefix(f"{name}:").strip().removeprefix("[").removesuffix("]")
    return f"; write it as -y '{name}: [{items}]'"
