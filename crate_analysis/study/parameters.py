"""The parameters of a chapter: annotated literals in one cell, checked before anything runs."""

from __future__ import annotations

import ast
import builtins
import reprlib
import types
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Union, get_args, get_origin

from crate_analysis.names import nearest

INJECTED_PATHS = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")
"""What papermill adds by itself, with its option `--inject-paths`."""

INJECTED = "# Parameters\n"
"""The first line of the cell that papermill adds."""


class ParameterError(ValueError):
    """A parameter that the notebook cannot be run with."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in IPython: how the check works would only bury what is wrong."""
        return [f"{type(self).__name__}: {self}"]


def read_parameters(namespace: MutableMapping[str, Any]) -> dict[str, Any]:
    """The checked parameters of the notebook whose ``globals()`` these are.

    Their names and kinds are those of the session's latest parameters cell, whose statements are
    all annotated literals, such as ``n_images: int = 400``; a kind may be written in quotes, such
    as ``"int or None"``, which is how papermill reads it. Text that spells a number, such as
    papermill's ``5e-5``, becomes one where a float is asked for, in `namespace` too.

    Raises ParameterError (a ValueError, one line in a notebook) for a name that the parameters
    cell lacks and for a value of another kind.
    """
    declared, injected = {}, {}
    for source in namespace.get("In", ()):
        assigned = literal_assignments(source, any_value=source.startswith(INJECTED))
        if source.startswith(INJECTED):
            injected = assigned
        elif any(kind is not None for kind in assigned.values()):
            declared = assigned
    kinds = {name: kind for name, kind in declared.items() if kind is not None}
    if not kinds:  # not in IPython
        kinds = {name: _kind(value) for name, value in namespace["__annotations__"].items()}
    for name in [*declared, *injected]:
        if name not in (*kinds, *INJECTED_PATHS):
            raise ParameterError(unknown_parameter(name, list(kinds)))
    for name, kind in kinds.items():
        if kind is float and isinstance(namespace[name], str):
            with suppress(ValueError):
                namespace[name] = float(namespace[name])
        check_value(name, namespace[name], kind)
    return {name: namespace[name] for name in kinds}


def literal_assignments(source: str, any_value: bool = False) -> dict[str, Any]:
    """What a cell assigns, name -> kind (None where it has no annotation).

    Empty where the cell does anything else than to give plain values to names, or, with
    `any_value`, than to give values to names.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return {}
    found: dict[str, Any] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = None
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = _kind(ast.unparse(statement.annotation))
            case _:
                return {}
        try:
            ast.literal_eval(value)
        except ValueError:
            if not any_value:
                return {}
    return found


def unknown_parameter(name: str, known: list[str]) -> str:
    """One line on a parameter that a notebook does not have."""
    near = nearest(name, known, cutoff=0.0)
    hint = f"did you mean {near!r}?" if near else "this notebook has none"
    return f"unknown parameter {name!r}: {hint} (this notebook has {', '.join(known)})"


def check_value(name: str, value: Any, kind: Any) -> None:
    """ParameterError where a value is not of its kind, with the way to write it where that helps.

    An ``int`` serves as a ``float``; a ``bool`` is not an ``int``.
    """
    if not _fits(value, kind):
        raise ParameterError(
            f"parameter {name!r} must be {_spell(kind)}, not {reprlib.repr(value)}"
            f" ({type(value).__name__}){_remedy(name, value, kind)}"
        )


def _kind(annotation: Any) -> Any:
    """The kind that an annotation names: ``list[str]``, ``int | None`` or ``"int or None"``."""
    while isinstance(annotation, str):
        text = annotation
        annotation = eval(text.strip("'\"").replace(" or ", " | "), vars(builtins).copy())
    return annotation


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
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind).replace(" | ", " or ")


def _remedy(name: str, value: Any, kind: Any) -> str:
    """How to write a list on papermill's command line, where -p can only give a single value."""
    several_lines = len(str(value).splitlines()) > 1
    if get_origin(kind) is not list or isinstance(value, (list, dict)) or several_lines:
        return ""
    items = str(value).removeprefix(f"{name}:").strip().removeprefix("[").removesuffix("]")
    return f"; write it as -y '{name}: [{items}]'"
