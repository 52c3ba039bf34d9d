"""Masks of patches drawn to the edges of the image, by a fully connected CRF."""

from __future__ import annotations

import numpy as np
import scipy  # whose parts are imported when they are used
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

ITERATIONS = 10
SMOOTHNESS = {"sxy": 3, "compat": 7}
APPEARANCE = {"sxy": 50, "srgb": 5, "compat": 10}
"""Deviations in pixels and in colour, and weights: those of the public MaskCut and TokenCut."""
LEAST_AGREEMENT = 0.5


def refine_masks(
    masks: Bool[Tensor, "k H W"], image: UInt8[Tensor, "3 H W"]
) -> Bool[Tensor, "k H W"]:
    """Each mask moved to the image's edges by a dense CRF (Kraehenbuehl and Koltun 2011).

    The mask is only evidence: a pixel inside has the probability e / (1 + e) of being the object.
    Holes are filled. Where the result has IoU < 0.5 with the mask, the mask is kept as it was.
    The paper's Table 1 does without.

    Raises ModuleNotFoundError where the optional dependency is missing.
    """
    try:
        from pydensecrf import densecrf
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "refinement needs pydensecrf2, which is compiled when it is installed: "
            "pip install 'crate-analysis[crf]'"
        ) from None
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    height, width = pixels.shape[:2]
    refined = []
    for mask in masks:
        inside = mask.double()
        evidence = torch.stack([1 - inside, inside]).log_softmax(0)
        crf = densecrf.DenseCRF2D(width, height, 2)
        crf.setUnaryEnergy(-evidence.float().flatten(1).numpy())
        crf.addPairwiseGaussian(**SMOOTHNESS)
        crf.addPairwiseBilateral(**APPEARANCE, rgbim=pixels)
        beliefs = np.array(crf.inference(ITERATIONS)).reshape(2, height, width)
        found = torch.from_numpy(scipy.ndimage.binary_fill_holes(beliefs[1] > beliefs[0]))
        shared, joint = (found & mask).sum(), (found | mask).sum()
        refined.append(found if shared >= LEAST_AGREEMENT * joint else mask)
    return torch.stack(refined) if refined else masks
