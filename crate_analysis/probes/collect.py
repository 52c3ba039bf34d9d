"""Reading many things off every layer of many images, in one forward pass an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from crate_analysis.datasets import Samples
from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import READING, Reading, check_layers, check_model, walk

Reader = Callable[[LayerState], Tensor]
"""From a layer's state to something with one row an image, (b, ...)."""


@torch.no_grad()  # tensors that can be used further, unlike those of inference_mode
def collect(
    model: UnrolledModel,
    data: Samples,
    readers: Mapping[str, Reader],
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> dict[str, Tensor]:
    """What each reader sees of every image and layer: name -> (images, layers, ...), on the CPU.

    Parameters
    ----------
    model, data, reading, edits : as `walk` takes them.
    readers : such as ``{"attention": lambda state: state.attention()[:, :, 0, state.patches]}``.
    layers : which, from 0 or from the end when negative, in the order wanted; default all. Layers
        after the deepest of them are not computed.

    Everything is kept in memory, for features of a base model with patch 8 at 224 x 224 about 29 MB
    an image: take few images or layers, and for numbers, one an image, `measure_layers`. Raises
    what `walk` raises, and ValueError for a reader that does not give one row an image.

    >>> from crate_analysis import load_model
    >>> cls_tokens = {"cls": lambda state: state.output[:, 0]}
    >>> model = load_model("crate-creatures")
    >>> collect(model, "creatures", cls_tokens, [-1], Reading(limit=2))["cls"].shape
    torch.Size([2, 1, 128])
    """
    wanted = check_layers(check_model(model), layers)
    rows: dict[str, list[Tensor]] = {name: [] for name in readers}
    for batch in walk(model, data, wanted, reading, edits):
        seen = {
            state.index: {name: read(state).cpu() for name, read in readers.items()}
            for state in batch.states
        }
        for name in readers:
            stacked = torch.stack([seen[index][name] for index in wanted], dim=1)
            if len(stacked) != len(batch.samples):
                raise ValueError(
                    f"reader {name!r} gave {len(stacked)} rows for {len(batch.samples)} images; "
                    "it must give one an image"
                )
            rows[name].append(stacked)
    return {name: torch.cat(parts) for name, parts in rows.items()}
