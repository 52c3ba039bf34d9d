"""Measuring every layer over a data set, in one pass and in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crate_analysis.datasets import Samples, batches, stack_images
from crate_analysis.measures.coding_rate import coding_rate, total_coding_rate
from crate_analysis.measures.sparsity import nonzero_fraction
from crate_analysis.models import LayerState, UnrolledModel

Measure = Callable[[LayerState], Tensor]
"""From a layer's state to one value an image, (b,)."""

MEASURES: dict[str, Measure] = {
    "coding_rate": lambda state: coding_rate(state.projections),
    "coding_rate_after_attention": lambda state: coding_rate(state.project(state.half)),
    "total_coding_rate": lambda state: total_coding_rate(state.normed),
    "nonzero_fraction": lambda state: nonzero_fraction(state.output),
}
"""What the paper measures, layer by layer: R^c(Z^l | U) on the layer's input, where the released
code takes it; the same on Z^{l+1/2}, where the paper's label places it; R(Z^l); and
||Z^{l+1}||_0 / (d t). R and R^c before attention see the same normalised tokens, so that their
difference is the rate reduction."""


@torch.inference_mode()
def measure_layers(
    model: UnrolledModel,
    dataset: Samples,
    measures: Mapping[str, Measure] | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = True,
    workers: int = 0,
) -> pd.DataFrame:
    """Every measure of every layer for every picture, all in one forward pass over the data.

    Parameters
    ----------
    model : pictures are normalised its way and measured on its device.
    dataset : pictures of one size, which the patch size divides.
    measures : name -> function of a `LayerState` giving one value an image; default `MEASURES`.
    limit : only the first so many pictures.
    workers : processes that read pictures, 0 for this one; see `batches`.

    Returns a tidy frame: model, layer (from 0), image (its index in the data set), measure, value.
    Only the frame grows with the number of pictures.

    Raises ValueError for an empty data set, pictures of differing size, or a measure that does not
    give one value an image.
    """
    measures = MEASURES if measures is None else measures
    count = len(dataset) if limit is None else min(limit, len(dataset))
    device = next(model.parameters()).device
    values = np.full((count, len(model.layers), len(measures)), np.nan)
    measured: list[int] = []
    for indices, samples in batches(dataset, batch_size, limit, model.name, progress, workers):
        images = model.normalize(stack_images(samples).to(device))
        measured += indices
        for state in model.unroll(images):
            for column, (name, measure) in enumerate(measures.items()):
                result = measure(state)
                if result.shape != (len(samples),):
                    raise ValueError(
                        f"measure {name!r} gave shape {tuple(result.shape)} for "
                        f"{len(samples)} pictures; it must give one value a picture"
                    )
                values[indices, state.index, column] = result.cpu().numpy()
    index = pd.MultiIndex.from_product(
        [measured, range(len(model.layers)), measures], names=["image", "layer", "measure"]
    )
    frame = pd.Series(values[measured].ravel(), index, name="value").reset_index()
    frame.insert(0, "model", model.name)
    return frame[["model", "layer", "image", "measure", "value"]]
