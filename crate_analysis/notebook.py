"""What the notebooks need beyond measuring: a check of their parameters, tables, saved figures.

papermill only warns about a parameter that a notebook does not have, and takes any value. The
cell after the parameters cell therefore says what each may be::

    from crate_analysis.notebook import check_parameters
    check_parameters(globals(), models=list[str], dataset=str, n_images=int, seed=int)
"""

import ast
import difflib
import os
import reprlib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

TABLE_CLASS = "table"  # as the book's theme calls the tables it lays out

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


class ParameterError(ValueError):
    """A parameter that the notebook cannot be run with."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython: how the check works would only bury what is wrong."""
        return [f"{type(self).__name__}: {self}"]


def check_parameters(namespace: Mapping[str, Any], **kinds: Any) -> None:
    """Raise ParameterError (a ValueError) on an unknown, missing or unfit parameter.

    ``namespace`` is the notebook's ``globals()``; ``kinds`` gives each parameter's kind, such as
    ``int``, ``list[str]`` or ``int | None``. An ``int`` serves as a ``float``; a ``bool`` is not
    an ``int``.

    Unknown names are looked for where parameters are set, in the session's latest parameters cell
    and in the cell that papermill added, so that variables of later cells are never mistaken for
    parameters when this check is run again.
    """
    for name in _assigned_parameters(namespace, kinds):
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}?" if near else "this notebook has none"
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
