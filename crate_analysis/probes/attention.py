"""Attention maps, read off one layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.models import LayerState, UnrolledModel
from crate_analysis.probes.collect import check_layer


def layer_state(model: UnrolledModel, images: Float[Tensor, "b 3 H W"], layer: int) -> LayerState:
    """The state of one layer; the layers after it are not computed.

    `layer` counts from 0, or from the end when negative. Raises ValueError where there is none.
    """
    index = check_layer(model, layer)
    return next(state for state in model.unroll(images) if state.index == index)


def papers_layer(model: UnrolledModel) -> int:
    """The layer, from 0, whose attention Yu et al. 2024 show: CRATE's last but one, a ViT's last.

    Variants in CRATE's frame count as CRATE. A network of one layer has only that one.
    """
    return max(0, len(model.layers) - (2 if model.config.family == "crate" else 1))


@torch.no_grad()
def cls_attention(
    model: UnrolledModel, images: Float[Tensor, "b 3 H W"], layer: int = -2
) -> Float[Tensor, "b h gh gw"]:
    """Attention of `[CLS]` to the patches, for every head, on the patch grid.

    Entries of a map sum to 1 less what `[CLS]` gives to itself. Yu et al. 2024 (Fig. 1, 7) take
    the last layer but one for CRATE, the default, and the last for a ViT.

    Parameters
    ----------
    images : normalised, see `model.normalize`.
    layer : from 0, or from the end when negative. Deeper layers are not computed.
    """
    attention = layer_state(model, images, layer).attention(query=slice(0, 1))
    return attention[:, :, 0, 1:].unflatten(-1, model.patch_grid(images))
