"""Every head of every layer against every true mask of a data set, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from crate_analysis.datasets import Samples
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.segmentation.masks import Rule
from crate_analysis.segmentation.scoring import OWN, Scoring
from crate_analysis.walk import READING, Reading, walk

SCORING = Scoring()


@torch.inference_mode()
def head_scores(
    model: UnrolledModel,
    data: Samples,
    scoring: Scoring = SCORING,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """How well each head's `[CLS]` attention finds each true mask, for every layer and image.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them; images of one size, with masks.
    scoring : what is scored, and within which pixels.

    Returns a tidy frame: model, maps (`own`) and draw (0), which tell these maps from those of
    rivals; layer (from 0), rule, within, image (its index in the data); place (of the mask in its
    sample: with the image, the mask's identity), mask (its name), is_part, head (from 0); share (of
    the pixels that count, in the mask: the average precision of a flat map) and the values of the
    scoring.

    Raises what `walk` raises, ValueError for data without masks, and without parts where scores
    within objects are asked for.

    See Also
    --------
    scores_with_rivals : the same with all rivals, for statements.
    best_heads : the paper's IoU of the best head, one value an image.
    cross_fit : choose a layer or a head on one half of the images, score it on the other.

    >>> from crate_analysis import load_model
    >>> from crate_analysis.segmentation import best_heads
    >>> model, two = load_model("crate-creatures"), Reading(limit=2)
    >>> scores = head_scores(model, "creatures", layers=[-2], reading=two)
    >>> bool(best_heads(scores).iou.between(0, 1).all())
    True
    """
    return scoring.frame(_scores(model, data, scoring, layers, reading, edits))


def _scores(
    model: UnrolledModel,
    data: Samples,
    scoring: Scoring,
    layers: Sequence[int] | None,
    reading: Reading,
    edits: Sequence[Edit],
) -> Iterator[pd.DataFrame]:
    for batch in walk(model, data, layers, reading, edits):
        truth = scoring.truth(batch.samples, batch.indices, batch.grid)
        for state in batch.states:
            found = scoring.score(truth, cls_maps(state.attention(), batch.grid).cpu())
            yield found.assign(model=model.name, maps=OWN, draw=0, layer=state.index)


def attention_iou(
    model: UnrolledModel,
    data: Samples,
    keep: float = 0.6,
    rules: Sequence[Rule] = ("mass", "entries"),
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """IoU of each head's `[CLS]` attention mask with each true mask, for every layer and image.

    `head_scores` of the IoU alone, in the whole image, by several rules (`attention_mask`).
    `best_heads` makes the paper's IoU of it (Yu et al. 2024, Sec. 3.1).

    >>> from crate_analysis import load_model
    >>> frame = attention_iou(load_model("crate-creatures"), "creatures", reading=Reading(limit=2))
    >>> sorted(frame.rule.unique())
    ['entries', 'mass']
    """
    scoring = Scoring(keep, rules, values=("iou",))
    return head_scores(model, data, scoring, reading=reading, edits=edits)
