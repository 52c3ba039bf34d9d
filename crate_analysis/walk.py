"""The one way through images and layers: how images are read, and each layer's state on the way.

`measure_layers`, `collect`, scores of heads and detection all read through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch

from crate_analysis.datasets import Sample, Samples, as_samples, batches, stack_images
from crate_analysis.models import Edit, LayerState, UnrolledModel


@dataclass(frozen=True)
class Reading:
    """How images are read: in lists of `batch_size`, the first `limit` of them (None for all).

    `workers` processes read ahead, 0 for this one; `progress` shows a bar. Raises TypeError for
    values of another kind, and ValueError for sizes under 1 or `workers` under 0.

    >>> Reading(batch_size=8, limit=100)
    Reading(batch_size=8, limit=100, workers=0, progress=False)
    """

    batch_size: int = 32
    limit: int | None = None
    workers: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("limit", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is None and name == "limit":
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"{name}={value!r} must be an int")
            if value < least:
                hint = ", or None for all" if name == "limit" else ""
                raise ValueError(f"{name}={value} must be at least {least}{hint}")
        if not isinstance(self.progress, bool):
            raise TypeError(f"progress={self.progress!r} must be True or False")

    def batches(
        self, samples: Samples, title: str = ""
    ) -> Iterator[tuple[list[int], list[Sample]]]:
        """The samples in lists, before each the indices in `samples`; see `datasets.batches`."""
        return batches(samples, self.batch_size, self.limit, title, self.progress, self.workers)

    def count(self, samples: Samples) -> int:
        """How many of the samples are read. Raises ValueError for none."""
        if not len(samples):
            raise ValueError("the data set is empty; check its folder, split and limit")
        return len(samples) if self.limit is None else min(len(samples), self.limit)


READING = Reading()
"""The default: 32 images at a time, all of them, in this process, without a bar."""


class Batch(NamedTuple):
    """Some images on their way through a model."""

    indices: list[int]
    """Which images these are: their places in the data."""
    samples: list[Sample]
    grid: tuple[int, int]
    """Rows and columns of patches."""
    states: Iterator[LayerState]
    """Of the layers that were asked for, in the order of the network, each computed when it is
    reached."""


def walk(
    model: UnrolledModel,
    data: Samples,
    layers: Sequence[int] | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> Iterator[Batch]:
    """Batch by batch through images of one size, and layer by layer through a model.

    Parameters
    ----------
    model : images are normalised its way and moved to its device.
    data : see `datasets.as_samples`; a spec is loaded at the model's image size.
    layers : which, from 0 or from the end when negative; default all. Layers after the deepest of
        them are not computed.
    edits : what is changed on the way, see `UnrolledModel.unroll`. One that acts after all that
        is read is an error: in a layer after the deepest of `layers`, or at a place of that layer
        that comes after what was read there.

    Gradients are computed where the caller has not switched them off. Raises TypeError for what is
    no model or no images, ValueError for empty data, images of differing size or a size that the
    patch size does not divide, and a layer that does not exist.

    >>> from crate_analysis import load_model
    >>> model = load_model("crate-creatures")
    >>> for batch in walk(model, "creatures", layers=[-2], reading=Reading(limit=2)):
    ...     print(batch.indices, [tuple(state.half.shape) for state in batch.states])
    [0, 1] [(2, 145, 128)]
    """
    samples = as_samples(data, image_size=check_model(model).config.image_size)
    wanted = None if layers is None else check_layers(model, layers)
    return _walk(model, samples, wanted, reading, edits)


def _walk(
    model: UnrolledModel,
    samples: Samples,
    layers: list[int] | None,
    reading: Reading,
    edits: Sequence[Edit],
) -> Iterator[Batch]:
    for indices, batch in reading.batches(samples, model.name):
        grid, states = layer_states(model, batch, layers, edits)
        yield Batch(indices, batch, grid, states)


def layer_states(
    model: UnrolledModel,
    samples: Sequence[Sample],
    layers: Sequence[int] | None,
    edits: Sequence[Edit] = (),
) -> tuple[tuple[int, int], Iterator[LayerState]]:
    """The patch grid of some samples, and their states in these layers (from 0), None for all."""
    images = model.normalize(stack_images(samples).to(device_of(model)))
    if not edits:
        return model.patch_grid(images), _chosen(model.unroll(images), layers)
    if layers is not None:
        check_reached(model, edits, max(layers))
    return model.patch_grid(images), _all_read(_chosen(model.unroll(images, edits), layers))


def _chosen(states: Iterator[LayerState], layers: Sequence[int] | None) -> Iterator[LayerState]:
    for state in states:
        if layers is None or state.index in layers:
            yield state
        if layers is not None and state.index == max(layers):
            return


def _all_read(states: Iterator[LayerState]) -> Iterator[LayerState]:
    """The states; after the last, an error where an edit has done nothing to what was read."""
    for state in states:
        yield state
    state.check_edits_read()


def check_reached(model: UnrolledModel, edits: Sequence[Edit], deepest: int) -> None:
    """Raise ValueError for an edit of a layer after the deepest that is read: it does nothing."""
    for edit in edits:
        if model.layer_index(edit.layer) > deepest:
            raise ValueError(
                f"{edit} would do nothing: layers are read up to {deepest}; edit one of these, or "
                "read a later layer"
            )


def check_model(model: UnrolledModel) -> UnrolledModel:
    """The model itself. Raises TypeError for anything else."""
    if isinstance(model, str):
        raise TypeError(f"the model is the text {model!r}; pass load_model({model!r})")
    if not isinstance(model, UnrolledModel):
        raise TypeError(
            f"the model is of type {type(model).__name__}, which has no layers to read; "
            "take one of load_model or build_model"
        )
    return model


def check_layer(model: UnrolledModel, layer: int) -> int:
    """`layer` counted from the front. Raises ValueError where the model has no such layer."""
    return model.layer_index(layer)


def check_layers(model: UnrolledModel, layers: Sequence[int] | None) -> list[int]:
    """These layers counted from the front, None for all. Raises as `check_layer`."""
    if layers is None:
        return list(range(len(model.layers)))
    if isinstance(layers, Integral):
        raise TypeError(f"layers={layers!r} must be a list, such as [{layers}]")
    if not len(layers):
        raise ValueError("layers is empty: name at least one, or leave it out for all")
    return [check_layer(model, layer) for layer in layers]


def device_of(model: UnrolledModel) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
