"""The same images in several versions: how alike a network's maps stay, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.probes.maps import kept_similarity, regrid
from crate_analysis.walk import READING, Reading, check_layer, check_model, walk


def compare_maps(
    model: UnrolledModel,
    original: Samples,
    versions: Mapping[str | float, Samples],
    layer: int = -2,
    reading: Reading = READING,
) -> pd.DataFrame:
    """How alike the maps of `[CLS]` are on versions of the same images, and if the class is right.

    Parameters
    ----------
    model, original, reading : as `walk` takes them; two images or more of one size.
    versions : name -> the same images in the same order, changed: noisy, or of another size, whose
        maps are summed to the patch grid of the originals. Images that cannot be read in a version
        are left out of it.
    layer : whose maps are read, from 0 or from the end when negative.

    Returns a row for each version and image: model, version, image; similarity, others and kept, as
    `kept_similarity` has them, against the maps of `original`; hit, 1 where the class is right and
    0 where not, NaN without a label or for classes that are not the classifier's.

    Raises what `walk` raises, and ValueError for an image that is not among the originals.

    >>> from crate_analysis import load_dataset, load_model
    >>> small, large = (load_dataset("creatures", "val", side, limit=2) for side in (72, 108))
    >>> found = compare_maps(load_model("crate-creatures"), small, {"large": large})
    >>> found[["version", "image"]].values.tolist()
    [['large', 0], ['large', 1]]
    """
    layer = check_layer(check_model(model), layer)
    before = _read(model, original, layer, reading)
    row_of = {index: row for row, index in enumerate(before.indices)}
    grid = (before.maps.shape[-2], before.maps.shape[-1])
    frames = []
    for name, data in versions.items():
        after = _read(model, data, layer, reading)
        strange = [index for index in after.indices if index not in row_of]
        if strange:
            raise ValueError(f"image {strange[0]} of version {name!r} is not among the originals")
        reference = before.maps[[row_of[index] for index in after.indices]]
        found = kept_similarity(regrid(after.maps, grid), reference)
        found = found.assign(image=after.indices, hit=after.hits)
        frames.append(found.assign(model=model.name, version=name)[["model", "version", *found]])
    return pd.concat(frames, ignore_index=True)


class _Seen(NamedTuple):
    indices: list[int]
    maps: Float[Tensor, "b h gh gw"]
    hits: np.ndarray


@torch.inference_mode()
def _read(model: UnrolledModel, data: Samples, layer: int, reading: Reading) -> _Seen:
    """The maps of one layer and whether the class is right, in one pass."""
    last = len(model.layers) - 1
    samples = as_samples(data, image_size=model.config.image_size)
    knows = 0 < model.config.num_classes == len(samples.classes)
    indices: list[int] = []
    maps, hits = [], []
    for batch in walk(model, samples, [layer, last], reading):
        indices += batch.indices
        for state in batch.states:
            if state.index == layer:
                maps.append(cls_maps(state.attention(), batch.grid).cpu())
        named = model.classify(state.output).argmax(-1).tolist() if knows else [None] * len(indices)
        for sample, name in zip(batch.samples, named, strict=False):
            known = knows and sample.label is not None
            hits.append(float(name == sample.label) if known else np.nan)
    return _Seen(indices, torch.cat(maps), np.array(hits))
