"""What the findings of a folder of runs come to: a verdict for each claim."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from crate_analysis.study.claims import CLAIMS, HOLDS, IN_PART, MISSING, NOT_HERE, UNCLEAR
from crate_analysis.study.findings import RESULTS, Number

TEXTS = ("claim", "rival", "verdict", "paper")


def read_results(folder: str | Path) -> pd.DataFrame:
    """All findings below a folder: the rows of each `CHAPTER-results.csv`, with their chapter.

    Parameters
    ----------
    folder : where chapters, or the runs of a grid, left their results.

    Returns a frame with the columns of `RESULTS` and before them `chapter` and `run`, the path of
    the run's folder below `folder`. Raises FileNotFoundError where no results are there.

    >>> read_results("output")  # doctest: +SKIP
    """
    root = Path(folder).expanduser()
    frames = []
    for path in sorted(root.rglob("*-results.csv")):
        frame = pd.read_csv(path, keep_default_na=False, na_values={"mean": [""], "low": [""],
                            "high": [""], "rival value": [""]})  # fmt: skip
        # results of older versions decide no claim
        frame = frame.assign(**{name: "" for name in TEXTS if name not in frame})
        frame = frame.reindex(columns=RESULTS)
        frame.insert(0, "chapter", path.name.removesuffix("-results.csv"))
        frame.insert(1, "run", str(path.parent.relative_to(root)))
        frames.append(frame)
    if not frames:
        raise FileNotFoundError(f"no results below {root}: run a chapter with -p output {root}")
    return pd.concat(frames, ignore_index=True)


def verdict(findings: Iterable[str]) -> str:
    """What the verdicts of a claim's findings (`holds`, `fails`, `open`) come to, see `RULE`.

    >>> verdict(["holds", "open"]), verdict(["open", "fails"]), verdict([])
    ('holds in part', 'not here', 'not measured in this run')
    """
    found = list(findings)
    if not found:
        return MISSING
    if all(one == "holds" for one in found):
        return HOLDS
    if "holds" in found:
        return IN_PART
    return NOT_HERE if "fails" in found else UNCLEAR


def judge(results: pd.DataFrame) -> pd.DataFrame:
    """One row a claim: what it says, its source and chapter, the paper's number, and the verdict.

    Parameters
    ----------
    results : of `read_results`; rows without a claim are passed over.

    Raises ValueError for a claim that is not in `CLAIMS`.
    """
    decided = results[results.claim != ""]
    unknown = sorted(set(decided.claim) - set(CLAIMS))
    if unknown:
        raise ValueError(f"no claim is called {unknown[0]!r}; there are {', '.join(CLAIMS)}")
    rows = [
        {
            "claim": claim.name,
            "says": claim.says,
            "source": claim.source,
            "paper": claim.paper,
            "chapter": claim.chapter,
            "verdict": verdict(decided[decided.claim == claim.name].verdict),
        }
        for claim in CLAIMS.values()
    ]
    return pd.DataFrame(rows)


def claims_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rows of `judge` for a page: claim, source, the paper's number, verdict and chapter."""
    columns = {
        "says": "claim",
        "source": "source",
        "paper": "the paper's",
        "verdict": "here",
        "chapter": "chapter",
    }
    return verdicts[list(columns)].rename(columns=columns)


def findings_table(results: pd.DataFrame) -> pd.DataFrame:
    """The findings that decide claims, in the order of `CLAIMS`, with numbers as they are read.

    `results` is a frame of `read_results`. Where several runs are in one folder, each row says
    whose it is.
    """
    decided = results[results.claim != ""]
    order = {name: place for place, name in enumerate(CLAIMS)}
    decided = decided.sort_values("claim", key=lambda c: c.map(order), kind="stable")
    rival = [
        f"{name}: {level:.3g}" if name else "0"
        for name, level in zip(decided.rival, decided["rival value"], strict=True)
    ]
    shown = pd.DataFrame(
        {
            "claim": decided.claim,
            "chapter": decided.chapter,
            "of": decided.model,
            "finding": decided.quantity,
            "ours": [
                format(Number(*row))
                for row in decided[["mean", "low", "high"]].itertuples(index=False)
            ],
            "beside": rival,
            "verdict": decided.verdict,
        }
    )
    if results.run.nunique() > 1:
        shown.insert(2, "run", decided.run)
    return shown
