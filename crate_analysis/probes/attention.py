"""Attention maps, read off one layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # whose parts are imported when they are used
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import check_layer, check_model, check_reached


def layer_state(
    model: UnrolledModel,
    images: Float[Tensor, "b 3 H W"],
    layer: int,
    edits: Sequence[Edit] = (),
) -> LayerState:
    """The state of one layer; the layers after it are not computed.

    `layer` counts from 0, or from the end when negative. Raises ValueError where there is none and
    for an edit of a later layer, and TypeError for what is no model, no tensor of images or no
    number of a layer.
    """
    index = check_layer(check_model(model), layer)
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images are of type {type(images).__name__}; give normalised pixels, such as "
            "model.normalize(stack_images(samples))"
        )
    check_reached(model, edits, index)
    return next(state for state in model.unroll(images, edits) if state.index == index)


def cls_maps(
    attention: Float[Tensor, "b h q t"], grid: tuple[int, int]
) -> Float[Tensor, "b h gh gw"]:
    """The map of the first query, `[CLS]`, on the patch grid; of `state.attention()`.

    The patches are the last gh gw tokens; what lies on `[CLS]` and on registers is left out.
    """
    return attention[:, :, 0, -grid[0] * grid[1] :].unflatten(-1, grid)


def papers_layer(model: UnrolledModel) -> int:
    """The layer, from 0, whose attention Yu et al. 2024 show: CRATE's last but one, a ViT's last.

    Variants in CRATE's frame count as CRATE. A network of one layer has only that one.
    """
    return max(0, len(model.layers) - (2 if model.config.family == "crate" else 1))


@torch.no_grad()
def cls_attention(
    model: UnrolledModel,
    images: Float[Tensor, "b 3 H W"],
    layer: int = -2,
    edits: Sequence[Edit] = (),
) -> Float[Tensor, "b h gh gw"]:
    """Attention of `[CLS]` to the patches, for every head, on the patch grid.

    Entries of a map sum to 1 less what `[CLS]` gives to itself and the registers. Yu et al. 2024
    (Fig. 1, 7) take the last layer but one for CRATE, the default, and the last for a ViT.

    Parameters
    ----------
    images : normalised, see `model.normalize`.
    layer : from 0, or from the end when negative. Deeper layers are not computed.
    edits : what is changed on the way, see `UnrolledModel.unroll`.

    Raises as `layer_state`.
    """
    state = layer_state(model, images, layer, edits)
    maps = cls_maps(state.attention(), model.patch_grid(images))
    state.check_edits_read()
    return maps


@torch.no_grad()
def patch_attention(
    model: UnrolledModel,
    images: Float[Tensor, "b 3 H W"],
    positions: Int64[Tensor, "b q 2"],
    layer: int = -2,
    edits: Sequence[Edit] = (),
) -> Float[Tensor, "b h q gh gw"]:
    """Attention of some patches of each image to all patches, for every head, on the patch grid.

    Entries of a map sum to 1 less what the patch gives to `[CLS]` and the registers; what it gives
    to itself is among them, and in MSSA, where a token's query is its own key, often the most.

    Parameters
    ----------
    images : normalised, see `model.normalize`.
    positions : row and column in the patch grid, from 0, of the patches that ask in each image.
    layer, edits : as for `cls_attention`. Only the rows that are asked for are built.

    Raises as `layer_state`, TypeError for positions that are no such tensor, and ValueError for a
    position outside the grid.
    """
    state = layer_state(model, images, layer, edits)
    grid = model.patch_grid(images)
    if not isinstance(positions, Tensor) or positions.ndim != 3 or positions.shape[-1] != 2:
        raise TypeError(
            "positions must be an integer tensor of shape (images, queries, 2), a row and a column "
            f"each, not {getattr(positions, 'shape', type(positions).__name__)}"
        )
    if len(positions) != len(images):
        raise ValueError(f"positions are of {len(positions)} images, but there are {len(images)}")
    rows, columns = positions.unbind(-1)
    for name, values, end in (("row", rows, grid[0]), ("column", columns, grid[1])):
        if not ((values >= 0) & (values < end)).all():
            raise ValueError(
                f"positions hold {name}s {values.min()} to {values.max()}, "
                f"but the grid has {name}s 0 to {end - 1}"
            )
    places = rows * grid[1] + columns
    asking, turn = (places + state.patches.start).unique(return_inverse=True)
    attention = state.attention(asking.tolist())  # these rows of the matrix, and no others
    state.check_edits_read()
    asked = attention[torch.arange(len(images))[:, None], :, turn]
    return asked.transpose(1, 2)[..., state.patches].unflatten(-1, grid)


def deepest_patch(masks: Bool[Tensor, "b H W"], grid: tuple[int, int]) -> Int64[Tensor, "b 2"]:
    """Row and column of the patch that lies deepest inside each mask, the first of equals.

    Depth is the distance of a pixel to the nearest one outside the mask, on average over a patch;
    the image's border does not count as outside. This chooses a place on an object, or with the
    mask turned round one away from it, without anyone's eye. Raises ValueError for a mask that is
    empty or all of the image, and where the grid does not divide the image.
    """
    height, width = masks.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(
            f"a grid of {grid[0]} x {grid[1]} patches does not divide {height} x {width} pixels"
        )
    found = []
    for index, mask in enumerate(masks.cpu().numpy()):
        if mask.all() or not mask.any():
            raise ValueError(f"mask {index} is empty or all of the image: it has no inside")
        depth = scipy.ndimage.distance_transform_edt(mask)
        cells = depth.reshape(grid[0], -1, grid[1], width // grid[1])
        found.append(np.unravel_index(cells.mean((1, 3)).argmax(), grid))
    return torch.tensor(np.array(found, dtype=np.int64).reshape(-1, 2))
