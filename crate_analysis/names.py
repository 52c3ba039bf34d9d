"""Names: the nearest known one, short digests, and texts as file names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str | None:
    """The known name that is spelled most like `name`, whatever its case, or None.

    `cutoff` is the similarity, in [0, 1], that it must have at least.

    >>> nearest("Vall", ["train", "val"])
    'val'
    """
    by_lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), by_lower, 1, cutoff)
    return by_lower[near[0]] if near else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The text of an error: there is no such thing, which one may be meant, and which there are.

    >>> unknown("split", "vall", ["train", "val"])
    "no split 'vall', did you mean 'val'? There are train, val"
    """
    known = list(known)
    near = nearest(name, known)
    hint = f", did you mean {near!r}? There are " if near else "; there are "
    return f"no {what} {name!r}{hint}{', '.join(known) or 'none'}"


def digest(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits of the SHA-256 of all parts, and of where one ends.

    >>> digest([b"a", b"bc"]) == digest([b"ab", b"c"])
    False
    """
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def slug(text: str) -> str:
    """A text as part of a file name: letters, digits, dots and dashes only, 80 at most.

    Texts that would become the same, or are too long, are told apart by a digest.

    >>> slug("crate-creatures")
    'crate-creatures'
    """
    plain = re.sub(r"[^\w.-]+", "-", text).strip("-.")
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[-60:]}-{digest([text.encode('utf-8', 'surrogateescape')])[:8]}"
