"""Random streams, each a function of a seed, a split, an item and a purpose alone."""

from __future__ import annotations

import numpy as np

# The purposes of an item's streams; each family has its own, so that it shares no image with
# another one, not even a background. Animals of mixed parts draw everything that must not tell of
# the rest from a stream of its own.
STAGE, ANIMALS, PLACES, EXOTIC_STAGE, EXOTIC_ANIMALS = range(5)
MIXED_STAGE, MIXED_PLACES, MIXED_PARTS, MIXED_COATS, MIXED_POSES, MIXED_FUR = range(5, 11)
SECOND_STAGE = 11
# A training is watched on "dev", so that what is reported on the others was never looked at.
SPLITS = {"train": 0, "val": 1, "test": 2, "dev": 3}


def stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """The random numbers for one purpose of one item.

    Key and first counter of a counter-based generator hold the four arguments, so two streams
    never share a number: splits, items and purposes are disjoint by construction.
    """
    key = np.array([seed, index], np.uint64)
    counter = np.array([0, 0, SPLITS[split], purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn evenly, several times faster than `rng.uniform`."""
    return low + (high - low) * rng.random()
