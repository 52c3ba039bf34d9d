"""The paper's mIoU, in every way that its text can be read, on one pass over the images.

Yu et al. 2024 (arXiv 2308.16271, Sec. 3.1) say: for each image the head whose mask has the largest
IoU. They leave open how a map becomes a mask, what void is, whether the masks are of classes or of
objects, and that the choice of the head needs the truth. Caron et al. 2021 (arXiv 2104.14294)
report the same networks with numbers half as high again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import get_args

import pandas as pd
import torch

from crate_analysis.datasets import Samples
from crate_analysis.measures.choice import cross_fit
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.segmentation.masks import Rule
from crate_analysis.segmentation.scoring import OWN, Scoring, Undecided
from crate_analysis.segmentation.truth import Unit, best_heads
from crate_analysis.walk import READING, Reading, walk

READINGS = ["model", "size", "rule", "layer", "undecided", "unit", "head"]
"""The columns that say which reading a row is of."""
DINO = {"rule": "mass", "undecided": "background", "unit": "object", "head": "per mask"}
"""Caron et al. 2021 as their author describes it (facebookresearch/dino, issue 54), at the last
layer: for each true mask the head with the largest Jaccard index, mean over the masks of an image,
then over images; maps cut at 60 % of their mass and brought to pixels by the nearest patch. That
void is background is how the code there counts, which knows no void."""


@torch.inference_mode()
def iou_readings(
    model: UnrolledModel,
    data: Samples,
    keep: float = 0.6,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """The IoU of heads with whole objects, one value an image, for every reading of the paper.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them; images of one size, with masks. Load
        them at several sizes for the reading of the size.
    keep : share of the mass, or of the entries, that a mask keeps.

    Returns a frame: model; size (of the images, in pixels, the height); rule (`mass`, `entries`);
    layer; undecided (`left out`, `background`: what void and crowds are); unit (`object`, `class`);
    head (`per mask`, the best for each mask, which needs the truth, or `fixed`, one head for all
    masks, chosen on the other half of the images); image; iou, the mean over the image's masks.
    `interval_frame(frame, "iou", READINGS)` is the table. `DINO` is one of the readings, at the
    last layer.

    Raises what `head_scores` raises, and ValueError for a single image, which has no other half.

    >>> from crate_analysis import load_model
    >>> frame = iou_readings(load_model("crate-creatures"), "creatures", reading=Reading(limit=2))
    >>> frame.groupby(READINGS).ngroups  # rules, layers, undecided, units, heads
    96
    """
    scorings = [
        Scoring(keep, get_args(Rule), unit=unit, undecided=undecided, values=("iou",))
        for unit, undecided in product(get_args(Unit), get_args(Undecided))
    ]

    def scored() -> Iterator[pd.DataFrame]:
        for batch in walk(model, data, layers, reading, edits):
            size = batch.samples[0].image.shape[1]
            truths = [each.truth(batch.samples, batch.indices, batch.grid) for each in scorings]
            for state in batch.states:
                maps = cls_maps(state.attention(), batch.grid).cpu()
                for scoring, truth in zip(scorings, truths, strict=True):
                    found = scoring.score(truth, maps).assign(layer=state.index, size=size)
                    yield found.assign(unit=scoring.unit, undecided=scoring.undecided)

    parts = [part.assign(model=model.name, maps=OWN, draw=0) for part in scored()]
    scorings[0].frame(parts)  # data without masks are an error
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[~frame.is_part]
    keys = [name for name in READINGS if name != "head"]
    best = best_heads(frame[[*keys, "image", "place", "is_part", "head", "iou"]])
    fixed = cross_fit(frame[[*keys, "image", "head", "iou"]], "head")
    found = [best.assign(head="per mask"), fixed.assign(head="fixed")]
    return pd.concat([each[[*READINGS, "image", "iou"]] for each in found], ignore_index=True)
