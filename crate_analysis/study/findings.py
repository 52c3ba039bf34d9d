"""What a chapter found: one row a number, and the sentences that are written from these rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from crate_analysis.measures import MeanInterval, mean_interval
from crate_analysis.names import nearest, unknown
from crate_analysis.study.claims import CLAIMS


@dataclass(frozen=True)
class Finding:
    """One number of a chapter; its rows make `CHAPTER-results.csv`.

    Parameters
    ----------
    model : the network, or the rival, that the number is of.
    quantity : what was measured. With `model` it names the row, in every run alike: it must not
        depend on what comes out.
    values : one value an image, of which the mean and its 95 % interval are taken; or a
        `MeanInterval`; or a single number, which has no interval. Without values, such as those of
        a rival that this run has not, there is no row.
    claim : the name of the claim that this number decides; by default none.
    rival : what the number is compared with to decide the claim, as a pair of name and value; by
        default 0, as for a difference.
    expected : where the claim expects the number to lie, seen from the rival.
    paper : the published number, as it is printed there.
    """

    model: str
    quantity: str
    values: ArrayLike | float | MeanInterval
    claim: str = ""
    rival: tuple[str, float] | None = None
    expected: Literal["above", "below"] = "above"
    paper: str = ""

    def row(self) -> dict[str, Any]:
        """The finding as a row of `RESULTS`."""
        if isinstance(self.values, MeanInterval):
            interval = self.values
        elif np.ndim(self.values) == 0:
            interval = MeanInterval(float(np.asarray(self.values)), math.nan, math.nan)
        else:
            interval = mean_interval(self.values)
        name, level = self.rival or ("", math.nan)
        verdict = ""
        if self.claim:
            verdict = decide(interval, level if self.rival else 0.0, self.expected)
        return {
            "model": self.model,
            "quantity": self.quantity,
            **interval._asdict(),
            "claim": self.claim,
            "rival": name,
            "rival value": level,
            "verdict": verdict,
            "paper": self.paper,
        }


RESULTS = ["model", "quantity", "mean", "low", "high", "claim", "rival", "rival value", "verdict",
           "paper"]  # fmt: skip
"""The columns of `CHAPTER-results.csv`."""


def decide(interval: MeanInterval, level: float, expected: Literal["above", "below"]) -> str:
    """Whether a claim holds: `holds` or `fails` where the whole interval lies on one side.

    `open` where the interval contains the level, or where there is no interval.
    """
    sign = 1 if expected == "above" else -1
    ends = sorted(sign * (end - level) for end in interval[1:])
    if ends[0] > 0:
        return "holds"
    return "fails" if ends[1] < 0 else "open"


def results_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """The rows of some findings, one for each model and quantity.

    Raises ValueError where two are of the same, by which rows of many runs are put side by side,
    and for a claim that is not in `CLAIMS`.
    """
    rows = [finding.row() for finding in findings if np.size(finding.values)]
    frame = pd.DataFrame(rows, columns=RESULTS)
    for claim in set(frame.claim) - {"", *CLAIMS}:
        raise ValueError(unknown("claim", claim, CLAIMS))
    twice = frame[frame.duplicated(["model", "quantity"])]
    if len(twice):
        raise ValueError(f"two findings are of {tuple(twice.iloc[0][['model', 'quantity']])}")
    return frame


class Number(NamedTuple):
    """A finding's number inside a sentence: a mean and its interval, or words for where it lies.

    >>> f"{Number(0.4, 0.35, 0.45)}, {Number(0.4, 0.35, 0.45):.0%}"
    '0.400 [0.350, 0.450], 40% [35%, 45%]'
    >>> f"the difference is {Number(0.4, 0.35, 0.45):positive|negative|unclear}"
    'the difference is positive'
    """

    mean: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        if form.count("|") == 2:
            verdict = decide(MeanInterval(*self), 0.0, "above")
            return dict(zip(("holds", "fails", "open"), form.split("|"), strict=True))[verdict]
        mean, low, high = (format(value, form or self._digits()) for value in self)
        return mean if math.isnan(self.low) else f"{mean} [{low}, {high}]"

    def _digits(self) -> str:
        """As many decimals as the interval's half width has up to its second figure."""
        half = (self.high - self.low) / 2
        if math.isnan(half) or half == 0:
            return ".3g"
        return f"z.{max(0, 1 - math.floor(math.log10(half)))}f"  # z: 0.00, never -0.00


class Subject:
    """A network or rival inside a sentence: `{main}` is its name, `{main[IoU]}` its number.

    What is known of a network besides is an attribute, such as `{main.layer}`. `quantities` are
    all that findings have, by which a slip in a sentence is told; none where a run may lack some.
    """

    def __init__(self, name: str, rows: pd.DataFrame, quantities: Sequence[str], **known: Any):
        self.name = name
        self.rows = rows.set_index("quantity")
        self.quantities = quantities
        self.__dict__.update(known)

    def __str__(self) -> str:
        return f"`{self.name}`"

    def __getitem__(self, quantity: str) -> Number:
        if quantity in self.rows.index:
            return Number(*self.rows.loc[quantity, ["mean", "low", "high"]])
        if quantity in self.quantities or not self.quantities:
            raise AbsentNumberError(quantity)
        near = nearest(quantity, self.quantities, cutoff=0.0)
        raise KeyError(f"no finding is called {quantity!r}; did you mean {near!r}?")


class AbsentNumberError(Exception):
    """A sentence speaks of a number that this run does not have."""


class ByName(dict[str, "Subject"]):
    """Subjects by their names; one that this run has not, such as a rival, is no error."""

    def __missing__(self, name: str) -> Any:
        near = nearest(name, self, cutoff=0.85)
        if near:
            raise KeyError(f"no finding is of {name!r}; did you mean {near!r}?")
        raise AbsentNumberError(name)


class Subjects(dict[str, "Subject | ByName"]):
    """The subjects that a sentence may name."""

    def __missing__(self, name: str) -> Any:
        if name == "other":
            raise AbsentNumberError(name)
        raise KeyError(f"a sentence can name {', '.join(self)} or other, not {name!r}")


def write_sentences(sentences: Iterable[str], subjects: Subjects) -> list[str]:
    """The sentences with their numbers in place, without those whose numbers are not there.

    A sentence about `other` is left out where one network is measured alone. Raises KeyError for
    a quantity that no row has, with the nearest that one has.
    """
    written = []
    for sentence in sentences:
        try:
            written.append(sentence.format_map(subjects))
        except AbsentNumberError:
            continue
    return written


def markdown_table(frame: pd.DataFrame) -> str:
    """The rows of a results frame as a Markdown table.

    A line a quantity and a column a model, or the other way round where there are more models: a
    page has more room below than beside.
    """
    table: dict[str, dict[str, str]] = {}  # of each model, what it has of each quantity
    for row in frame.to_dict("records"):
        table.setdefault(f"`{row['model']}`", {})[row["quantity"]] = _cell(row)
    papers = frame[frame["paper"] != ""].drop_duplicates("quantity").set_index("quantity").paper
    if len(papers):
        table["the paper's"] = {str(name): value for name, value in papers.items()}
    quantities = list(dict.fromkeys(frame["quantity"]))
    rows = [["mean [95 % interval]", *quantities]]
    rows += [[model, *(of.get(name, "") for name in quantities)] for model, of in table.items()]
    models = frame["model"].nunique()
    lines = rows if models > len(quantities) else [list(line) for line in zip(*rows, strict=True)]
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(row: Mapping[Any, Any]) -> str:
    """A number, and what it decides."""
    number = Number(row["mean"], row["low"], row["high"])
    text = format(number).replace(", ", ",\N{NO-BREAK SPACE}")  # an interval stays on its line
    if not row["verdict"]:
        return text
    against = f" against {row['rival']}, {row['rival value']:.3f}" if row["rival"] else ""
    return f"{text} ({row['verdict']}{against})"
