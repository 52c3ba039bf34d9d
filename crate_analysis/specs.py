"""Which models are meant: one string for each, the same in Python, notebooks, grids and commands.

`[LABEL=]WHAT[@ARCH][@field=value,...]`, where WHAT is a shipped model, a file, a folder or a
repository on the Hugging Face hub. Nothing here opens a model or imports torch, so that a wrong
spec is told before anything starts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]

HUB_PREFIX = "hf:"
FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".t7", ".onnx")
"""What a model file's name may end in; a label is the name without them."""

_HUB_NAME = re.compile(rf"{HUB_PREFIX}([\w.-]+/[\w.-]+)(?:/([^:]+))?(?::([^:]+))?")
_FIELD_NAME = re.compile(r"[A-Za-z_]\w*")
_WHOLE = re.compile(r"[+-]?\d+")
_ORDINARY = (
    "model|pytorch_model|diffusion_pytorch_model|checkpoint|checkpoints|ckpt|weights|state_dict|"
    "teacher_checkpoint|student_checkpoint|backbone|encoder|network|net|snapshot|snapshots|run|"
    "step|epoch|iter|best|last|latest|final|end|current|training|train|eval"
)
_SAYS_NOTHING = re.compile(rf"(?:{_ORDINARY}|[-_. ]|\d)*|[0-9a-f]{{40}}", re.IGNORECASE)
"""Names that many a run gives its file: `model`, `checkpoint-500`, `best_model`, `step-000010`."""


@dataclass(frozen=True)
class ModelSpec:
    """One model: how tables and figures call it, what is loaded, and what its file leaves open.

    `str(spec)` is the string again; `parse_spec` of it gives an equal spec.

    >>> spec = parse_spec("mine=runs/a/model.pth@vit_small_patch16_224@step_size=0.2")
    >>> spec.label, spec.what, spec.arch, spec.fields
    ('mine', 'runs/a/model.pth', 'vit_small_patch16_224', {'step_size': 0.2})
    """

    label: str
    what: str
    arch: str | None = None
    fields: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        label = "" if self.label == default_label(self.what) else f"{self.label}="
        arch = f"@{self.arch}" if self.arch else ""
        fields = ",".join(f"{name}={_written(value)}" for name, value in self.fields.items())
        return f"{label}{self.what}{arch}{'@' if fields else ''}{fields}"


def parse_spec(text: str | os.PathLike[str] | ModelSpec) -> ModelSpec:
    """A model spec in its parts.

    `LABEL=` is what tables and figures call the model; without it that is the shipped model's
    name, the file's stem, or its folder's name where the stem says nothing (`model`, `last`, ...).
    `@ARCH` and `@field=value,...` settle what the weights leave open. Values are numbers, `true`,
    `false` or text; several belong to one field as in `pixel_mean=0.5,0.5,0.5`. A label holds
    neither `/` nor `@`, so that `=` and `@` in a folder's name are left alone; and where a file or
    folder of the whole name exists, the whole is its name.

    Raises ValueError, one line that quotes the spec, for one of another form and for a value that
    is not finite.

    >>> parse_spec("crate-creatures").label
    'crate-creatures'
    >>> parse_spec("runs/lr=0.1/model.pth@heads=6").fields
    {'heads': 6}
    """
    if isinstance(text, ModelSpec):
        return text
    if not isinstance(text, str | os.PathLike) or not str(text).strip():
        raise ValueError(
            f"a model is named by a text such as 'crate-creatures', not by {text!r}; "
            "list_models() has the names"
        )
    given = os.fspath(text).strip()
    label, what, suffixes = _cut(given)
    arch: str | None = None
    fields: dict[str, Value] = {}
    for suffix in suffixes:
        if "=" in suffix and not fields:
            fields = _fields(suffix, given)
        elif "=" not in suffix and suffix and arch is None:
            arch = suffix
        else:
            raise ValueError(
                f"{given!r}: nothing, or a second time the same, after an @; "
                "write [LABEL=]WHAT[@ARCH][@field=value,...]"
            )
    if not what.strip(f"/{os.sep}"):
        raise ValueError(f"{given!r} names no model; write [LABEL=]WHAT[@ARCH][@field=value,...]")
    return ModelSpec(default_label(what) if label is None else label, what, arch, fields)


def parse_specs(texts: Iterable[str | os.PathLike[str] | ModelSpec]) -> list[ModelSpec]:
    """Several models, in order, no two of one label.

    Raises ValueError where none is named, where two would be called the same (both are named, with
    a list to paste that tells them apart), and what `parse_spec` raises.

    >>> [spec.label for spec in parse_specs(["a/model.pth", "b/model.pth"])]
    ['a', 'b']
    """
    if isinstance(texts, str | os.PathLike | ModelSpec) or not isinstance(texts, Iterable):
        raise ValueError(f"models are a list, not {texts!r}; write models: {_pasted([str(texts)])}")
    specs = [parse_spec(text) for text in texts]
    if not specs:
        raise ValueError("no model is named; give at least one, such as 'crate-creatures'")
    taken: dict[str, ModelSpec] = {}
    for spec in specs:
        if (other := taken.setdefault(spec.label, spec)) is not spec:
            apart = [_labelled(other, f"{spec.label}-1"), _labelled(spec, f"{spec.label}-2")]
            raise ValueError(
                f"{str(other)!r} and {str(spec)!r} would both be called {spec.label!r}; "
                f"label them, as in models: {_pasted(apart)}"
            )
    return specs


def default_label(what: str) -> str:
    """What a model is called where nobody says: see `parse_spec`."""
    for name in _names(what):
        stem = _without_endings(name).lstrip("_")  # matplotlib's legends leave `_name` out
        if not _SAYS_NOTHING.fullmatch(stem):
            return stem
    return _without_endings(next(_names(what))).lstrip("_") or "model"


def hub_parts(name: str) -> tuple[str, str | None, str | None]:
    """OWNER/REPO, file and revision of a name on the hub; the last two are None where not named.

    >>> hub_parts("hf:facebook/dinov2-small:main")
    ('facebook/dinov2-small', None, 'main')
    """
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            f"{name!r} names nothing on the hub; write {HUB_PREFIX}OWNER/REPO or "
            f"{HUB_PREFIX}OWNER/REPO/FILE, and :REVISION after either if need be"
        )
    repo, file, revision = found.groups()
    return repo, file, revision


def _cut(given: str) -> tuple[str | None, str, list[str]]:
    """Label, WHAT and what follows each `@`, in order; the longest WHAT that exists wins."""
    heads = [(given, list[str]())]
    while len(heads) < 3:
        head, at, suffix = heads[-1][0].rpartition("@")
        if not at or _has_separator(suffix):
            break
        heads.append((head, [suffix, *heads[-1][1]]))
    for head, suffixes in heads:
        if _exists(head):
            return None, head, suffixes
        label, body = _cut_label(head, given)
        if label is not None and _exists(body):
            return label, body, suffixes
    head, suffixes = heads[-1]
    return *_cut_label(head, given), suffixes


def _cut_label(head: str, given: str) -> tuple[str | None, str]:
    label, equals, body = head.partition("=")
    if not equals or _has_separator(label) or "@" in label:
        return None, head
    label = label.strip()
    if not label or label.startswith("_") or not label.isprintable():
        raise ValueError(
            f"{given!r}: {label!r} is no label; write a word before '=' that does not begin "
            "with '_', which figures leave out of their legends"
        )
    return label, body.strip()


def _fields(suffix: str, given: str) -> dict[str, Value]:
    """`heads=6,pixel_mean=0.5,0.5,0.5`; a piece without `=` is one more value of the last field."""
    found: dict[str, tuple[Scalar, ...]] = {}
    name = ""
    for piece in suffix.split(","):
        before, equals, text = (part.strip() for part in piece.rpartition("="))
        if equals:
            name = before
            if not _FIELD_NAME.fullmatch(name) or name in found:
                raise ValueError(f"{given!r}: {piece!r} is not one field=value, each field once")
            found[name] = ()
        if not name or not text:
            raise ValueError(f"{given!r}: {piece!r} lacks a field or a value; write field=value")
        found[name] += (_value(text, given),)
    return {key: values if len(values) > 1 else values[0] for key, values in found.items()}


def _value(text: str, given: str) -> Scalar:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        if len(text) > 18:
            raise ValueError(f"{given!r}: {text} is too large a number")
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise ValueError(f"{given!r}: {text} is not a finite number")
    return number


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(_written(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(what: str) -> Iterator[str]:
    """The names that a path or repository offers, the nearest to the weights first."""
    if what.startswith(HUB_PREFIX) and (found := _HUB_NAME.fullmatch(what)):
        repo, file, _ = found.groups()
        yield from (PurePath(file).name,) if file else ()
        yield repo.split("/")[1]
        return
    path = PurePath(what)
    yield path.name
    if _has_separator(what) or path.name.endswith(FILE_ENDINGS):
        try:
            folders = Path(what).expanduser().absolute().parent
        except (OSError, RuntimeError):
            folders = Path(what).parent
        yield from (name for name in reversed(folders.parts) if name != folders.anchor)


def _without_endings(name: str) -> str:
    name = name.removesuffix(".index.json")
    while name.endswith(FILE_ENDINGS):
        name = name[: name.rindex(".")]
    return name


def _labelled(spec: ModelSpec, label: str) -> str:
    return str(ModelSpec(label, spec.what, spec.arch, spec.fields))


def _pasted(texts: list[str]) -> str:
    """A list as YAML and Python both read it."""
    return "[" + ", ".join('"' + text.replace('"', '\\"') + '"' for text in texts) + "]"


def _has_separator(text: str) -> bool:
    return "/" in text or os.sep in text


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no home, a null character
        return False
