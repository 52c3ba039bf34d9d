"""How well the first principal component of patch features tells objects from the rest."""

from __future__ import annotations

import pandas as pd
import torch

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.collect import collect
from crate_analysis.probes.features import patch_keys
from crate_analysis.probes.parts import UNLABELLED, patch_labels
from crate_analysis.probes.pca import component_auc
from crate_analysis.walk import READING, Reading, check_model


def pca_separation(model: UnrolledModel, data: Samples, reading: Reading = READING) -> pd.DataFrame:
    """AUC of the first component of the patch features of each layer, one PCA for all images.

    Yu et al. 2024 (arXiv 2308.16271), Fig. 3, show it in colours; here it is a number: how surely a
    patch of a whole object outscores another one of its image (see `separation_auc`), by the sign
    that `pca_scores` gives. A patch is an object's where objects cover half of it or more.

    Parameters
    ----------
    model, data, reading : as `walk` takes them; images of one size, with masks. The features of
        all are kept in memory, 4.7 MB an image for 12 layers of 256 patches and width 384.

    Returns a frame with the columns model, layer (from 0), image, auc (in [0, 1], 0.5 is chance,
    NaN for an image that is all object, or has none).

    >>> from crate_analysis import load_model
    >>> frame = pca_separation(load_model("crate-creatures"), "creatures", Reading(limit=2))
    >>> frame.shape
    (12, 4)
    """
    samples = as_samples(data, image_size=check_model(model).config.image_size)
    batches = list(reading.batches(samples))
    images = [index for indices, _ in batches for index in indices]
    read = [sample for _, batch in batches for sample in batch]
    side = model.config.patch_size
    grid = (read[0].image.shape[1] // side, read[0].image.shape[2] // side)
    keys = collect(model, read, {"keys": patch_keys}, reading=Reading(reading.batch_size))["keys"]
    names = sorted({name for sample in read for name in sample.mask_names})
    truth = patch_labels(read, grid, names, of="objects") != UNLABELLED
    rows = []
    for layer, features in enumerate(keys.unbind(1)):
        auc = component_auc(features, grid, truth, [torch.arange(len(read))])
        rows += [(model.name, layer, *row) for row in zip(images, auc.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["model", "layer", "image", "auc"])
