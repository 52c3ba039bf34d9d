"""Patch features, read off one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.probes.attention import layer_state


def patch_keys(state: LayerState) -> Float[Tensor, "b n c"]:
    """All heads' U_k^T LN(z) of each patch in one layer, side by side (c = h p); a ViT's keys."""
    return merge_heads(state.projections)[:, state.patches]


@torch.no_grad()
def patch_features(
    model: UnrolledModel,
    images: Float[Tensor, "b 3 H W"],
    layer: int = -1,
    edits: Sequence[Edit] = (),
) -> Float[Tensor, "b n c"]:
    """All heads' U_k^T LN(z) of each patch, side by side (c = h p); a ViT's keys.

    These are the features of the paper's PCA and MaskCut (Yu et al. 2024, Sec. 3). `images` are
    normalised; `layer` counts from 0, or from the end when negative; for `edits` see
    `UnrolledModel.unroll`.
    """
    state = layer_state(model, images, layer, edits)
    features = patch_keys(state)
    state.check_edits_read()
    return features
