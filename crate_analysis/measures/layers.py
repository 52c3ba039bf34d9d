"""Measuring every layer over a data set, in one pass and in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from crate_analysis.datasets import Samples
from crate_analysis.measures.coding_rate import coding_rate, rate_reduction, total_coding_rate
from crate_analysis.measures.sparsity import nonzero_fraction
from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import READING, Reading, check_layers, check_model, walk

Measure = Callable[[LayerState], Tensor]
"""From a layer's state to one value an image, (b,)."""

MEASURES: dict[str, Measure] = {
    "coding_rate": lambda state: coding_rate(state.projections),
    "coding_rate_after_attention": lambda state: coding_rate(state.project(state.half)),
    "total_coding_rate": lambda state: total_coding_rate(state.normed),
    "rate_reduction": lambda state: rate_reduction(state.normed, state.subspaces),
    "nonzero_fraction": lambda state: nonzero_fraction(state.sparsified),
}
"""What the paper measures, layer by layer: R^c(Z^l | U) on the layer's input, where the released
code takes it; the same on Z^{l+1/2}, where the paper's label places it; R(Z^l); and
||Z^{l+1}||_0 / (d t), of CRATE-alpha's overcomplete code ||a||_0 / (c t). `rate_reduction` is the
objective's R - R^c, both of the same tokens on one scale."""


@torch.inference_mode()
def measure_layers(
    model: UnrolledModel,
    data: Samples,
    measures: Mapping[str, Measure] | None = None,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """Every measure of every layer for every image, all in one forward pass over the data.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them.
    measures : name -> function of a `LayerState` giving one value an image; default `MEASURES`.

    Returns a tidy frame: model, layer (from 0), image (its index in the data), measure, value.
    Only the frame grows with the number of images.

    Raises what `walk` raises, and ValueError for a measure that does not give one value an image.

    >>> from crate_analysis import load_model
    >>> frame = measure_layers(load_model("crate-creatures"), "creatures", reading=Reading(limit=2))
    >>> frame.groupby("measure").value.count().unique()
    array([12])
    """
    measures = MEASURES if measures is None else measures
    wanted = check_layers(check_model(model), layers)
    measured: list[int] = []
    values: list[NDArray[np.float64]] = []
    for batch in walk(model, data, wanted, reading, edits):
        measured += batch.indices
        found = np.empty((len(batch.samples), len(wanted), len(measures)))
        for state in batch.states:
            for column, (name, measure) in enumerate(measures.items()):
                result = measure(state)
                if result.shape != (len(batch.samples),):
                    raise ValueError(
                        f"measure {name!r} gave shape {tuple(result.shape)} for "
                        f"{len(batch.samples)} images; it must give one value an image"
                    )
                found[:, wanted.index(state.index), column] = result.cpu().numpy()
        values.append(found)
    index = pd.MultiIndex.from_product(
        [measured, wanted, measures], names=["image", "layer", "measure"]
    )
    frame = pd.Series(np.concatenate(values).ravel(), index, name="value").reset_index()
    frame.insert(0, "model", model.name)
    return frame[["model", "layer", "image", "measure", "value"]]
