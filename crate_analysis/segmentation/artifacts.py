"""What attention segments when the longest tokens are masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from crate_analysis.datasets import Samples
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.artifacts import longest_patches, without_patches
from crate_analysis.probes.attention import cls_maps
from crate_analysis.segmentation.scoring import Scoring
from crate_analysis.segmentation.truth import best_heads
from crate_analysis.walk import READING, Reading, walk

AS_THEY_ARE, MASKED, RANDOM = "as they are", "longest masked", "random patches masked"
SHARE = 0.02
"""Of the patches: about as many as Darcet et al. 2024 find to be artifacts in DINOv2."""
TREATMENTS = (AS_THEY_ARE, MASKED, RANDOM)
"""What the column `maps` of `masked_iou` says."""


@torch.inference_mode()
def masked_iou(
    model: UnrolledModel,
    data: Samples,
    share: float = SHARE,
    keep: float = 0.6,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    reading: Reading = READING,
) -> pd.DataFrame:
    """The best head's IoU with whole objects, with and without the attention to the longest tokens.

    If scattered maps are the work of artifact tokens, which are long (Darcet et al. 2024, arXiv
    2309.16588), taking the longest out mends them, whether or not they are far longer than the
    rest. The control takes out as many patches that are drawn by `seed`.

    Parameters
    ----------
    model, data, layers, reading : as `walk` takes them; images with masks.
    share : of the patches of an image, by the norm of the layer's output, see `longest_patches`.
    keep : share of the mass that a mask keeps.

    Returns a row for each of `TREATMENTS` (column `maps`), layer and image: model, maps, layer,
    image, iou, as `best_heads` defines it. Raises what `head_scores` raises.

    >>> from crate_analysis import load_model
    >>> frame = masked_iou(load_model("vit-creatures"), "creatures", reading=Reading(limit=2))
    >>> len(frame) == 3 * 6 * 2
    True
    """
    scoring = Scoring(keep, values=("iou",))

    def scored() -> Iterator[pd.DataFrame]:
        for batch in walk(model, data, layers, reading):
            truth = scoring.truth(batch.samples, batch.indices, batch.grid)
            for state in batch.states:
                maps = cls_maps(state.attention(), batch.grid).cpu()
                longest = longest_patches(state.output[:, state.patches], share).cpu()
                others = _elsewhere(longest, batch.indices, seed)
                for name, treated in (
                    (AS_THEY_ARE, maps),
                    (MASKED, without_patches(maps, longest)),
                    (RANDOM, without_patches(maps, others)),
                ):
                    found = scoring.score(truth, treated)
                    yield found.assign(maps=name, draw=0, layer=state.index)

    parts = [part.assign(model=model.name) for part in scored()]
    frame = best_heads(scoring.frame(parts))
    return frame[["model", "maps", "layer", "image", "iou"]]


def _elsewhere(
    chosen: Bool[Tensor, "b n"], images: Sequence[int], seed: int
) -> Bool[Tensor, "b n"]:
    """As many patches of each image, drawn at random; the same whatever batch an image is in."""
    count = chosen.shape[1]
    orders = [np.random.default_rng((seed, image)).permutation(count) for image in images]
    return chosen.gather(1, torch.from_numpy(np.stack(orders)))
