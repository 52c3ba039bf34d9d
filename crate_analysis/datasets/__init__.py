"""Data sets by name: `load_dataset("creatures")`, `load_dataset("voc:ROOT")`, and so on."""

from .creatures import Creatures
from .sample import Sample


def load_dataset(spec, split="val", image_size=None, limit=None, seed=0):
    return Creatures(split, image_size or 96, limit, seed)


__all__ = ["Sample", "load_dataset"]
