"""Tensors that belong together: what does not match is told, and never broadcast."""

from __future__ import annotations

from torch import Tensor


def check_match(axes: int | None = None, **tensors: Tensor) -> None:
    """Raise ValueError unless these tensors agree in their first `axes` axes, None for all.

    >>> import torch
    >>> check_match(1, maps=torch.zeros(1, 4), masks=torch.zeros(2, 3))
    Traceback (most recent call last):
    ValueError: maps is of shape (1, 4) and masks of shape (2, 3): give both of the same images
    """
    (name, first), *others = tensors.items()
    for other, tensor in others:
        if first.shape[:axes] != tensor.shape[:axes]:
            raise ValueError(
                f"{name} is of shape {tuple(first.shape)} and {other} of shape "
                f"{tuple(tensor.shape)}: give both of the same images"
            )
