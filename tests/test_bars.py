"""Progress bars: for people who watch a bar, in a log a line now and then."""

import io
import os
import subprocess
import sys
import time

from crate_analysis import bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def watch(monkeypatch, stream, seconds_between, **options):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(bars, "SECONDS_BETWEEN_LINES", seconds_between)
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in bars.bar(range(50), "reading", **options):
        time.sleep(0.01)
    return stream.getvalue()


def test_a_log_has_a_line_now_and_then(monkeypatch):
    said = watch(monkeypatch, io.StringIO(), 0.2)
    assert "\r" not in said and "\x1b" not in said
    lines = said.splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("reading: ") and len(line) <= 80 for line in lines)
    assert "50/50" in lines[-1]


def test_a_short_loop_says_nothing_in_a_log(monkeypatch):
    assert watch(monkeypatch, io.StringIO(), 60) == ""


def test_who_watches_sees_a_bar(monkeypatch):
    said = watch(monkeypatch, Terminal(), 60)
    assert said.count("\r") > 2 and "50/50" in said


def test_a_notebook_keeps_nothing_of_a_bar_that_is_done(monkeypatch):
    class OutStream(io.StringIO):
        """What stands for a stream of a notebook's kernel."""

    OutStream.__module__ = "ipykernel.iostream"
    shown = OutStream()
    monkeypatch.setattr(sys, "stdout", shown)
    assert watch(monkeypatch, OutStream(), 60) == ""
    states = shown.getvalue().split("\r")
    assert any("50/50" in state for state in states)
    assert not states[-1].strip() and not states[-2].strip() and "\n" not in shown.getvalue()


def test_bars_can_be_hidden(monkeypatch):
    assert watch(monkeypatch, Terminal(), 0.01, shown=False) == ""
    assert watch(monkeypatch, io.StringIO(), 0.01, shown=False) == ""
    code = "from crate_analysis import bars; bars.SECONDS_BETWEEN_LINES = 0; list(bars.bar('abc'))"
    for variables, hidden in ({"TQDM_DISABLE": "1"}, True), ({}, False):
        environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"} | variables
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert (done.stderr == "") == hidden
