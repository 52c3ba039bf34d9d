"""What an image costs in data sets of 100 to 2,000: `python benchmarks/scaling.py`.

Creatures are written as JPEG files and read back, so that decoding counts. Each point is a fresh
process with one thread: its CPU time, which other jobs on the machine hardly change, and its peak
memory. Decoding is timed by the clock, alternately with 0, 1 and 2 processes that read.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import SampleDataset, batches, export_coco, export_voc
from crate_analysis.evaluate import evaluate
from crate_analysis.measures import measure_layers
from crate_analysis.segmentation import attention_iou, detect_objects
from crate_analysis.segmentation.detection import find_objects

COUNTS = [100, 200, 500, 1000, 2000]
SIZE = 72
SHARD = 128
LAYOUTS = {
    "measure_layers": "folder:{}/voc/JPEGImages",
    "attention_iou": "voc:{}/voc",
    "detect_objects": "coco:{}/coco",
}
PHOTOS, WIDTH, HEIGHT = 500, 500, 375  # as VOC has them
WORKERS = [0, 1, 2]
ROUNDS = 3


def point(name: str, in_shards: bool, count: int, root: str) -> None:
    """Print the CPU time (s) and the peak memory (MB) of one measurement in this process."""
    torch.set_num_threads(1)
    model = load_model("crate-creatures")
    spec = LAYOUTS[name].format(root)
    with tempfile.TemporaryDirectory() as folder:
        library: dict[str, Callable[[SampleDataset], object]] = {
            "measure_layers": lambda data: measure_layers(model, data),
            "attention_iou": lambda data: attention_iou(model, data),
            "detect_objects": lambda data: detect_objects(model, data, folder),
        }
        parts = {**library, "detect_objects": lambda data: find_objects(model, data)}
        whole = load_dataset(spec, "dev", SIZE)
        chosen = load_dataset(spec, "dev", SIZE, limit=count)
        library[name](load_dataset(spec, "dev", SIZE, limit=8))  # warm up
        assert len(whole) == COUNTS[-1] and len(chosen) == count
        start = time.process_time()
        if in_shards:
            evaluate(parts[name], {"measure": name}, model, chosen, Path(folder), SHARD)
        else:
            library[name](chosen)
        seconds = time.process_time() - start
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def measured(name: str, in_shards: bool, count: int, root: str) -> tuple[float, float]:
    """`point`, in a process of its own."""
    command = [sys.executable, __file__, name, str(int(in_shards)), str(count), root]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds, peak = json.loads(run.stdout)
    return seconds, peak


def scaling(root: str) -> None:
    dataset = load_dataset("creatures", "dev", 2 * SIZE, COUNTS[-1])
    export_voc(dataset, f"{root}/voc", progress=False)
    export_coco(dataset, f"{root}/coco", progress=False)
    print(f"CPU time of an image (ms, and times that of {COUNTS[0]}) and peak memory (MB)")
    rule = " | ".join("-" * 19 for _ in COUNTS)
    print(f"| {'images':<25} | {' | '.join(f'{count:<19,}' for count in COUNTS)} |")
    print(f"| {'-' * 25} | {rule} |")
    for name in LAYOUTS:
        for in_shards in (False, True):
            points = [measured(name, in_shards, count, root) for count in COUNTS]
            costs = [
                1e3 * seconds / count for count, (seconds, _) in zip(COUNTS, points, strict=True)
            ]
            cells = [
                f"{cost:.1f} ({cost / costs[0]:.2f}x), {peak:.0f}"
                for cost, (_, peak) in zip(costs, points, strict=True)
            ]
            row = name + ", in shards" * in_shards
            print(f"| {row:<25} | {' | '.join(f'{c:<19}' for c in cells)} |", flush=True)


def decoding(root: str) -> None:
    rng = np.random.default_rng(0)
    folder = Path(root) / "photos"
    folder.mkdir()
    for number in range(PHOTOS):  # blurred noise has about as many bytes as a photograph
        coarse = rng.integers(0, 256, (HEIGHT // 5, WIDTH // 5, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03d}.jpg")
    size = sum(path.stat().st_size for path in folder.iterdir()) / PHOTOS / 1e3
    photos = load_dataset(f"folder:{folder}", image_size=224)
    torch.set_num_threads(1)
    times: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    first = {}
    for turn in range(ROUNDS + 1):
        for workers in WORKERS:
            start = time.perf_counter()
            run = batches(photos, 32, workers=workers)
            next(run)
            begun = time.perf_counter()
            seen = sum(len(samples) for _, samples in run)
            if turn:
                times[workers].append(seen / (time.perf_counter() - begun))
                continue
            first[workers] = begun - start
    print(f"\nReading {PHOTOS} JPEG files of {WIDTH} x {HEIGHT} ({size:.0f} kB) at 224 x 224")
    for workers, rates in times.items():
        gains = [rate / base for rate, base in zip(rates, times[0], strict=True)]
        print(
            f"workers={workers}: {statistics.median(rates):.0f} images a second, "
            f"{statistics.median(gains):.2f}x ({min(gains):.2f} to {max(gains):.2f}); "
            f"first batch ever after {first[workers]:.1f} s"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        scaling(root)
        decoding(root)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        point(sys.argv[1], bool(int(sys.argv[2])), int(sys.argv[3]), sys.argv[4])
    else:
        main()
