"""Progress bars, all of one kind: a bar where somebody watches, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0


class _Lines:
    """A file for tqdm that has lines in place of what overwrites itself."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text and not text.startswith("\x1b"):  # the cursor's moves
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        self.stream.flush()


def bar(
    items: Iterable[Any] | None = None,
    title: str = "",
    total: int | None = None,
    *,
    unit: str = "image",
    initial: int = 0,
    shown: bool = True,
) -> tqdm:
    """Tqdm's bar over some items, on the standard error; in a log file it is a line each minute.

    Somebody watches a terminal or a notebook. A notebook's bar stands on the standard output and
    goes when it is done, so that nothing of it stays above a finding. The environment variable
    TQDM_DISABLE hides all bars.

    >>> list(bar("ab", shown=False))
    ['a', 'b']
    """
    options: dict[str, Any] = {} if shown else {"disable": True}
    if type(sys.stderr).__module__.startswith("ipykernel"):
        options |= {"file": sys.stdout, "leave": False}  # JupyterLab shows errors on red
    elif not sys.stderr.isatty():
        rare = SECONDS_BETWEEN_LINES
        options |= {"file": _Lines(sys.stderr), "ncols": 80}
        options |= {"delay": rare, "mininterval": rare, "maxinterval": rare}
    return tqdm(items, title, total, unit=unit, initial=initial, **options)
