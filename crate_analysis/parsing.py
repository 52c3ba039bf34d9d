"""YAML of people's own, read without surprises: files of parameters, grids, command lines.

PyYAML follows YAML 1.1, in which ``1e-05`` is text, ``010`` is 8, ``1:30`` is 90, ``no`` is false
and ``2024-01-01`` is a date; of two equal keys it takes the last without a word. Here scalars are
those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2, section 10.3.2), and a key is given
once.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from crate_analysis.text import one_line

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (r"null|Null|NULL|~|", "nN~"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}


class _Core:
    """How scalars are told apart, the same in reading and writing."""

    yaml_implicit_resolvers: ClassVar[dict] = {}


class _Loader(_Core, yaml.SafeLoader):
    yaml_constructors: ClassVar[dict] = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(f"{_TAG}{name}" for name in (*_SCALARS, "str", "seq", "map")))
        if tag != f"{_TAG}merge"
    }

    def construct_document(self, node: Any) -> Any:
        return self.construct_object(node, deep=True)  # at once, which what contains itself can not

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        own = [key for key, _ in node.value if key.tag != f"{_TAG}merge"]
        keys = [self.construct_object(key, deep=True) for key in own]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = own[place].start_mark.line + 1
                raise ValueError(f"line {line}: {key!r} is given twice; give it once")
        return super().construct_mapping(node, deep)

    def construct_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


class _Dumper(_Core, yaml.SafeDumper):
    def represent_str(self, data: str) -> yaml.Node:
        return self.represent_scalar(f"{_TAG}str", data, style='"')  # stays on one line


for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"{_TAG}{_name}",
            re.compile(f"(?:{_pattern})$"),
            [*_first, ""] if _name == "null" else list(_first),
        )
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_int)
_Dumper.add_representer(str, _Dumper.represent_str)


def parse_yaml(text: str) -> Any:
    """What a text in YAML says; ValueError, in one line, where it is not valid.

    >>> parse_yaml("{rate: 1e-05, seeds: [0, 1], day: 2024-01-01}")
    {'rate': 1e-05, 'seeds': [0, 1], 'day': '2024-01-01'}
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("this YAML is nested too deeply, or contains itself") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        said = str(error).replace('in "<unicode string>", ', "")
        raise ValueError(f"no valid YAML: {one_line(said)}") from None


def parse_value(text: str) -> Any:
    """A number, true, false, null or None where a text is one, and otherwise the text itself.

    >>> [parse_value(text) for text in ("5e-5", "voc:/data #2", "None")]
    [5e-05, 'voc:/data #2', None]
    """
    if text == "None":
        return None
    tag = _Loader("").resolve(yaml.ScalarNode, text, (True, False)) if text else ""
    number = tag.rpartition(":")[2] in ("null", "bool", "int", "float")
    return parse_yaml(text) if number else text


def to_yaml(value: Any) -> str:
    """One line that `parse_yaml` reads as the same value."""
    written = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False
    )
    return written.removesuffix("\n").removesuffix("\n...")
