"""Bring the two sides of each notebook together: `NAME.ipynb`, and `NAME.py` for diffs.

    python workflow/sync.py notebooks book/_build/state/pairs.json

What was not edited does not win, however new its time stamp is (git touches files too): each side
is compared with what it held when the two last agreed, which the second file keeps, or else with
what was last committed. Where both sides were edited nothing is written, and both are named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIDES = (".ipynb", ".py")
Digests = dict[str, str]
"""Of a notebook's sides, by their suffix."""


def main() -> None:
    """Read the command line and do it; what cannot be settled is told, a line for each notebook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("state", type=Path, help="what the sides held when they last agreed")
    arguments = parser.parse_args()
    errors = sync(arguments.folder, arguments.state)
    if errors:
        sys.exit("\n".join(errors))


def sync(folder: Path, state: Path) -> list[str]:
    """Write the side that was not edited; the errors, one for each notebook left as it was."""
    try:
        agreed: dict[str, Digests] = json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        agreed = {}
    now: dict[str, Digests] = {}
    errors: list[str] = []
    for name in sorted({path.stem for path in folder.iterdir() if path.suffix in SIDES}):
        found = {
            side: digest(path.read_bytes())
            for side in SIDES
            if (path := folder / f"{name}{side}").is_file()
        }
        if found != agreed.get(name):
            try:
                found = settle(folder / name, found, agreed.get(name, {}))
            except ValueError as error:
                errors.append(str(error))
                found = agreed.get(name, {})
        now[name] = found
    if now != agreed:
        state.parent.mkdir(parents=True, exist_ok=True)
        part = state.with_name(f"{state.name}.{os.getpid()}.part")
        part.write_text(json.dumps(now, indent=0), encoding="utf-8")
        part.replace(state)
    return errors


def settle(pair: Path, found: Digests, agreed: Digests) -> Digests:
    """Bring one pair together; what it holds then. ValueError where nobody can say which side."""
    import jupytext  # takes a second, and is needed only now

    notebook, script = (pair.with_name(f"{pair.name}{side}") for side in SIDES)
    for path in (notebook, script):
        if path.suffix in found and "<<<<<<< " in path.read_text(
            encoding="utf-8", errors="replace"
        ):
            raise ValueError(f"{path} holds a conflict that git left open; settle it first")
    if len(found) == 2:
        try:
            if jupytext.writes(jupytext.read(notebook), "py:percent") == _text(script):
                return found
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{notebook} cannot be read ({said}); delete it, and it is made from {script.name}"
            ) from None
    winner = notebook if edited_side(pair, found, agreed) == ".ipynb" else script
    now = time.time()
    for path in (notebook, script):
        if path.exists():
            os.utime(path, (now, now if path == winner else now - 60))
    _jupytext("--sync", winner)
    # Once more: the .py is written from the .ipynb, so that there is one way to write it.
    os.utime(notebook, (now + 1, now + 1))
    _jupytext("--sync", notebook)
    return {path.suffix: digest(path.read_bytes()) for path in (notebook, script)}


def edited_side(pair: Path, found: Digests, agreed: Digests) -> str:
    """The suffix of the side that alone was edited, since the two last agreed or were committed."""
    if len(found) == 1:
        return next(iter(found))
    for before in (agreed, committed(pair)):
        edited = [side for side in SIDES if before and found[side] != before.get(side)]
        if len(edited) == 1:
            return edited[0]
    notebook, script = (f"{pair}{side}" for side in SIDES)
    raise ValueError(
        f"{notebook} and {script} were both edited, each in another way; "
        "put into one of them what should stay of the other, delete the other, and run make sync"
    )


def committed(pair: Path) -> Digests:
    """What git's last commit holds of a pair; nothing where there is none."""
    held = {}
    for side in SIDES:
        command = ["git", "-C", str(pair.parent), "show", f"HEAD:./{pair.name}{side}"]
        try:
            held[side] = digest(subprocess.run(command, capture_output=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError):
            return {}
    return held


def digest(content: bytes) -> str:
    """Of a file, whatever ends its lines; of a notebook, without its outputs."""
    try:
        cells = json.loads(content)["cells"]
        kept: Any = [[cell["cell_type"], cell["source"], cell["metadata"]] for cell in cells]
        content = json.dumps(kept, sort_keys=True).encode()
    except (ValueError, TypeError, KeyError):
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()[:16]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _jupytext(*arguments: Any) -> None:
    from jupytext.cli import jupytext

    jupytext(["--quiet", *map(str, arguments)])


if __name__ == "__main__":
    main()
