"""What a network had at a place, kept to be put into another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from crate_analysis.datasets import Samples
from crate_analysis.models import Edit, LayerState, Place, UnrolledModel
from crate_analysis.models.unrolled import PLACES
from crate_analysis.probes.collect import collect
from crate_analysis.walk import READING, Reading, check_layers, check_model


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """One place of some layers for some images, on the CPU; see `record`."""

    place: Place
    values: Mapping[int, Tensor]
    """Layer, from 0 -> what stood there, a row an image."""

    def at(self, layer: int) -> Tensor:
        """A layer's values. Raises ValueError for one that was not recorded."""
        if layer not in self.values:
            raise ValueError(
                f"layer {layer} was not recorded, only {', '.join(map(str, self.values))}"
            )
        return self.values[layer]

    def mean(self) -> Recording:
        """The mean over the images: a recording of one row."""
        means = {layer: rows.mean(0, keepdim=True) for layer, rows in self.values.items()}
        return Recording(self.place, means)

    def __repr__(self) -> str:
        images = len(next(iter(self.values.values())))
        return f"<{self.place} of layers {', '.join(map(str, self.values))}, {images} images>"


def record(
    model: UnrolledModel,
    data: Samples,
    place: Place = "head_outputs",
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> Recording:
    """What stands at a place in each layer, for every image.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them.
    place : projections, attention (all rows), head_outputs, half, codes or output.

    All is kept in memory: take few images or layers. Raises what `walk` raises, and ValueError for
    a place that is none.

    >>> from crate_analysis import load_model
    >>> record(load_model("crate-creatures"), "creatures", layers=[4], reading=Reading(limit=2))
    <head_outputs of layers 4, 2 images>
    """
    if place not in PLACES:
        raise ValueError(f"place={place!r} is not one of {', '.join(PLACES)}")
    wanted = check_layers(check_model(model), layers)
    found = collect(model, data, {place: lambda state: _read(state, place)}, wanted, reading, edits)
    return Recording(place, dict(zip(wanted, found[place].unbind(1), strict=True)))


def _read(state: LayerState, place: Place) -> Tensor:
    return state.attention(None) if place == "attention" else getattr(state, place)
