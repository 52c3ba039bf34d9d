"""What a long run of Snakemake says: how far it is, and at the end what failed, why, and where."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from crate_analysis.text import one_line

SILENCE = 60.0
"""Seconds after which it is said what is still running."""
TAIL = 30
"""Lines of a failed job's log that are shown."""


@dataclass
class Job:
    """One notebook or page that is made."""

    name: str
    log: Path | None
    begun: float = field(default_factory=time.monotonic)


class Progress(logging.Handler):
    """Follows Snakemake's own log, and shows of it only what goes wrong in the workflow itself.

    The whole of it stands in a file in `.snakemake/log`.
    """

    def __init__(self, book: Path, is_dry: Callable[[], bool]) -> None:
        super().__init__()
        self.book = book
        self.is_dry = is_dry
        self.makes_book = False
        self.total = 0
        self.done = 0
        self.running: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.ended = threading.Event()
        self.spoke = time.monotonic()

    def begin(self) -> None:
        """Listen, and speak now and then."""
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: self.is_dry() or _is_of_the_workflow(record))
        logger.addHandler(self)
        threading.Thread(target=self._break_silence, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what began and ended."""
        said: dict[str, Any] = record.__dict__
        match said.get("event"):
            case LogEvent.RUN_INFO:
                counts = said["stats"]
                aims = ("total", "book", "cells", "summary")
                self.makes_book = "html" in counts
                self.total = counts["total"] - sum(counts.get(aim, 0) for aim in aims[1:])
            case LogEvent.JOB_INFO if said["log"]:
                self._began(said["jobid"], _name(said), Path(str(said["log"][0])))
            case LogEvent.JOB_FINISHED if said["job_id"] in self.running:
                self._finished(said["job_id"])
            case LogEvent.JOB_ERROR if said["jobid"] in self.running:
                self._broke(said["jobid"])

    def _began(self, number: int, name: str, log: Path) -> None:
        again = self.failed.pop(number, None)
        self.running[number] = Job(name, log)
        if again:
            self._say(f"{name}: once more")

    def _finished(self, number: int) -> None:
        job = self.running.pop(number)
        self.done += 1
        for line in _lines(job.log)[:-1]:  # the last one says how long it took
            print(line, file=sys.stderr)
        self._say(f"{job.name}: done in {time.monotonic() - job.begun:.0f} s")

    def _broke(self, number: int) -> None:
        job = self.failed[number] = self.running.pop(number)
        self._say(f"{job.name}: failed after {time.monotonic() - job.begun:.0f} s: {_reason(job)}")

    def _say(self, what: str) -> None:
        self.spoke = time.monotonic()
        state = f"{self.done} of {self.total} done, {len(self.running)} running"
        print(f"[{state}] {what}", file=sys.stderr, flush=True)

    def _break_silence(self) -> None:
        while not self.ended.wait(1):
            if self.running and time.monotonic() - self.spoke > SILENCE:
                jobs = sorted(self.running.values(), key=lambda job: job.begun)
                ages = (f"{job.name} for {time.monotonic() - job.begun:.0f} s" for job in jobs)
                self._say(f"running: {', '.join(ages)}")

    def end(self) -> None:
        """Say what failed, why, in which log, and what became of the book."""
        self.ended.set()
        for job in self.failed.values():
            print(f"--- {job.log}", *_lines(job.log)[-TAIL:], sep="\n", file=sys.stderr)
        if self.failed:
            print(f"--- {len(self.failed)} of {self.total} failed:", file=sys.stderr)
        for job in self.failed.values():
            print(f"{job.name}: {_reason(job)} (log: {job.log})", file=sys.stderr)
        if self.failed and self.makes_book:
            said = "The book is as it was" if self.book.exists() else "There is no book yet"
            print(f"{said}: {self.book}", file=sys.stderr)


def _is_of_the_workflow(record: logging.LogRecord) -> bool:
    """Whether a message tells what went wrong, and not in a job, of which we tell ourselves."""
    ours = ("RuleException", "Exiting because", "WorkflowError:\nAt least one job")
    return (
        record.levelno >= logging.WARNING
        and record.__dict__.get("event") != LogEvent.JOB_ERROR
        and not record.getMessage().startswith(ours)
    )


def _name(said: dict[str, Any]) -> str:
    """What people know a job by: the chapter, the folder of a run, or the rule."""
    return next(iter(said["wildcards"].values()), said["rule_name"].replace("_", " "))


def _reason(job: Job) -> str:
    """The last that a job said."""
    return one_line(next(reversed(_lines(job.log)), "it said nothing"))


def _lines(log: Path | None) -> list[str]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace") if log else ""
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]
