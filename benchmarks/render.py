"""How many images a second the creatures are drawn at: one table, by size and workers."""

from __future__ import annotations

import time

import pandas as pd
from torch.utils.data import DataLoader

from crate_analysis.datasets import Sample, load_dataset

SECONDS = 5  # to measure for, after the workers have started
WARM_UP = 50  # images


def identity(sample: Sample) -> Sample:
    return sample


def rate(spec: str, image_size: int, workers: int) -> float:
    """Images a second with `workers` processes that draw."""
    dataset = load_dataset(spec, "train", image_size=image_size, limit=1_000_000)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=workers, prefetch_factor=16, collate_fn=identity
    )
    images = iter(loader)
    for _ in range(WARM_UP):
        next(images)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        next(images)
        count += 1
    return count / (time.perf_counter() - start)


def main() -> None:
    rows = [
        {
            "data set": spec,
            "pixels a side": size,
            "workers": workers,
            "a second": rate(spec, size, workers),
        }
        for spec in ("creatures", "creatures-scenes")
        for size in (64, 96, 224)
        for workers in (1, 2)
    ]
    print(pd.DataFrame(rows).round(0).astype({"a second": int}).to_string(index=False))


if __name__ == "__main__":
    main()
