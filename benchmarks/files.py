"""What CPU time a data set of many files takes to load, and its fingerprint to be taken.

`python benchmarks/files.py` writes 100,000 images of one pixel, in 100 class folders, and times
what is done before the first image is measured. The same script times an older version of the
library that has no `of_files`: run it with that version first on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from crate_analysis import fingerprints
from crate_analysis.datasets import load_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root, options.files)
        dataset = load_dataset(f"folder:{root}", "train", image_size=8)
        steps: dict[str, Callable[[], object]] = {
            "load_dataset, train": lambda: load_dataset(f"folder:{root}", "train"),
            "load_dataset, val": lambda: load_dataset(f"folder:{root}", "val"),
            "of_data": lambda: fingerprints.of_data(dataset),
        }
        for step in ("of_content", "of_files"):
            if hasattr(fingerprints, step):
                steps[step] = lambda step=step: getattr(fingerprints, step)(dataset)
        for step, run in steps.items():
            seconds = [timed(run) for _ in range(options.repeats)]
            print(
                f"{step}: {statistics.median(seconds):.2f} s "
                f"({min(seconds):.2f} to {max(seconds):.2f})"
            )


def write(root: Path, count: int) -> None:
    for split, share in (("train", 1.0), ("val", 0.01)):
        for index in range(int(count * share)):
            path = root / split / f"class{index % 100:03d}" / f"{index:06d}.png"
            if index < 100:
                path.parent.mkdir(parents=True)
                Image.new("RGB", (1, 1)).save(path)
                content = path.read_bytes()
            path.write_bytes(content)


def timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
