"""MaskCut's iterative solver against the dense one of the public code, on one core.

The images are smooth random fields with a few objects, on the 60 x 60 grid that the paper's
480 x 480 images have at patch 8, with 384 features as CRATE-S and DINO ViT-S have. Per cut: the
time of a dense generalised eigenproblem in double precision, which the public code solves for each
cut, against ours for all three cuts of an image, affinity included, divided by the number of cuts.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from importlib import import_module
from time import perf_counter

import pandas as pd
import torch
import torch.nn.functional as F

from crate_analysis.segmentation import maskcut

GRID, CHANNELS, PICTURES = (60, 60), 384, 5
MODULE = import_module("crate_analysis.segmentation.maskcut")


def picture(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, CHANNELS, 7, 7, generator=generator)
    field = F.interpolate(coarse, GRID, mode="bicubic")[0].flatten(1).T
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in GRID), indexing="ij")
    for _ in range(3):
        top, left = (torch.randint(10, 50, (2,), generator=generator)).tolist()
        inside = (rows - top) ** 2 + (columns - left) ** 2 < 80
        field = field + 2 * inside.reshape(-1, 1) * torch.randn(CHANNELS, generator=generator)
    return field + 0.7 * torch.randn(field.shape, generator=generator)


def cuts_of(features: torch.Tensor, few: int) -> tuple[torch.Tensor, float, int]:
    """Masks, seconds, and how many eigenproblems were solved."""
    solve, MODULE.FEW, solved = MODULE._Graph._solve, few, []
    MODULE._Graph._solve = lambda graph: solved.append(1) or solve(graph)
    start = perf_counter()
    masks = maskcut(features, GRID)
    seconds = perf_counter() - start
    MODULE._Graph._solve = solve
    return masks, seconds, len(solved)


def main() -> None:
    torch.set_num_threads(1)
    cuts_of(picture(0), MODULE.FEW)  # warm up
    few = MODULE.FEW
    rows = []
    for seed in range(PICTURES):
        features = picture(seed)
        dense, dense_seconds, solved = cuts_of(features, GRID[0] * GRID[1])
        quick, quick_seconds, _ = cuts_of(features, few)
        rows.append(
            {
                "image": seed,
                "cuts": solved,
                "dense, s a cut": dense_seconds / solved,
                "iterative, s a cut": quick_seconds / solved,
                "times faster": dense_seconds / quick_seconds,
                "same masks": dense.shape == quick.shape and bool((dense == quick).all()),
            }
        )
    frame = pd.DataFrame(rows)
    print(frame.round(3).to_string(index=False))
    print(f"median: {frame['times faster'].median():.0f} times faster")


if __name__ == "__main__":
    main()
