"""Files that appear whole or not at all, and that are checked when they are read back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from crate_analysis.names import digest


class DamagedFileError(ValueError):
    """A file that the library wrote is not as it was written."""

    def __init__(
        self, path: Path, where: str = "", remedy: str = "delete it and run again"
    ) -> None:
        super().__init__(
            f"{path}{where and f', {where},'} is not as it was written: it was cut off or edited, "
            f"or belongs to another request; {remedy}"
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name, no other writer's, for what is moved to `path` when it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file under a temporary name, no other writer's, then move it to its own."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, no other writer's, then move it to its own."""
    with written_whole(path) as part:
        part.write_bytes(content)


_DIGEST = re.compile(r',\s*"digest": "([0-9a-f]{16})"\s*\}\s*\Z')


def seal(content: Mapping[str, Any], about: str = "", indent: int | None = None) -> str:
    """A JSON object as text, with a digest of that text and of `about` as its last entry.

    `about` says what the object, which must not be empty, belongs to, such as the request that it
    answers. It is not in the text: `unseal` refuses the text where another is expected.

    >>> unseal(seal({"n": 3}, "image 7"), "image 7")
    {'n': 3}
    """
    head = json.dumps(content, indent=indent)[:-1].rstrip()
    found = digest([about.encode(), head.encode()])
    space, end = ("\n" + " " * indent, "\n") if indent else (" ", "")
    return f'{head},{space}"digest": "{found}"{end}}}'


def unseal(text: str, about: str = "") -> dict[str, Any]:
    """The object that `seal` made a text of. Raises ValueError where text or `about` is another."""
    match = _DIGEST.search(text)
    if match is None or match[1] != digest([about.encode(), text[: match.start()].encode()]):
        raise ValueError("the digest is missing or of another text")
    content: dict[str, Any] = json.loads(text[: match.start()] + "}")
    return content


def read_sealed(path: Path, about: str = "") -> dict[str, Any]:
    """The object in a file that holds what `seal` gave. Raises DamagedFileError for any other."""
    try:
        return unseal(path.read_text(encoding="utf-8"), about)
    except ValueError:
        raise DamagedFileError(path) from None
