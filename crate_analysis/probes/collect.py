"""Reading many things off every layer of many pictures, in one forward pass a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from crate_analysis.datasets import Samples, batches, stack_images
from crate_analysis.models import LayerState, UnrolledModel

Reader = Callable[[LayerState], Tensor]
"""From a layer's state to something with one row an image, (b, ...)."""


@torch.no_grad()  # tensors that one may go on with, which inference_mode's are not
def collect(
    model: UnrolledModel,
    dataset: Samples,
    readers: Mapping[str, Reader],
    layers: Sequence[int] | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = False,
    workers: int = 0,
) -> dict[str, Tensor]:
    """What each reader sees of every picture and layer: name -> (images, layers, ...), on the CPU.

    Parameters
    ----------
    readers : such as ``{"attention": lambda state: state.attention()[:, :, 0, state.patches]}``.
    layers : which, from 0 or from the end when negative, in the order wanted; default all. Layers
        after the deepest of them are not computed.
    workers : processes that read pictures, 0 for this one; see `batches`.

    Everything is kept in memory, for features of a base model with patch 8 at 224 x 224 about 29 MB
    a picture: take few pictures or layers, and for numbers, one an image, `measure_layers`. Raises
    ValueError for an empty data set, pictures of differing size, a layer that does not exist, or a
    reader that does not give one row an image.
    """
    depth = len(model.layers)
    wanted = list(range(depth)) if layers is None else [check_layer(model, n) for n in layers]
    if not wanted:
        raise ValueError("layers is empty: name at least one, or leave it out for all")
    device = next(model.parameters()).device
    rows: dict[str, list[Tensor]] = {name: [] for name in readers}
    for _, samples in batches(dataset, batch_size, limit, model.name, progress, workers):
        images = model.normalize(stack_images(samples).to(device))
        seen: dict[int, dict[str, Tensor]] = {}
        for state in model.unroll(images):
            if state.index in wanted:
                seen[state.index] = {name: read(state).cpu() for name, read in readers.items()}
            if state.index == max(wanted):
                break
        for name in readers:
            stacked = torch.stack([seen[index][name] for index in wanted], dim=1)
            if len(stacked) != len(samples):
                raise ValueError(
                    f"reader {name!r} gave {len(stacked)} rows for {len(samples)} pictures; "
                    "it must give one a picture"
                )
            rows[name].append(stacked)
    return {name: torch.cat(parts) for name, parts in rows.items()}


def check_layer(model: UnrolledModel, layer: int) -> int:
    """`layer` counted from the front. Raises ValueError where the model has no such layer."""
    return model.layer_index(layer)
