"""What measuring costs: `python benchmarks/measures.py` prints one table.

Ratios are taken between things timed alternately in this one run, since machines are noisy.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.measures import MEASURES, coding_rate, measure_layers
from crate_analysis.models.unrolled import softmax_rows, weighted_values

ROUNDS = 9
PAPERS = ["coding_rate", "nonzero_fraction"]  # the two that the papers plot


def literal_coding_rate(z: torch.Tensor, eps2: float = 0.01) -> torch.Tensor:
    """The t x t formula as it is written."""
    z = z / z.norm(dim=-1, keepdim=True)
    tokens, dim = z.shape[-2:]
    gram = z @ z.mT
    return torch.logdet(torch.eye(tokens) + dim / (tokens * eps2) * gram).sum(-1) / 2


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> tuple[float, float, float]:
    """Median times of both (s), and the median of their ratio, round by round."""
    times = []
    for _ in range(ROUNDS + 1):
        pair = []
        for run in (slow, fast):
            start = time.perf_counter()
            run()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    slow_times, fast_times = zip(*times[1:], strict=True)  # the first round warms up
    ratios = [a / b for a, b in zip(slow_times, fast_times, strict=True)]
    return statistics.median(slow_times), statistics.median(fast_times), statistics.median(ratios)


def rate_against_formula() -> list[str]:
    z = torch.randn(4, 12, 785, 48)
    error = (coding_rate(z) / literal_coding_rate(z) - 1).abs().max().item()
    literal, ours, times = ratio(lambda: literal_coding_rate(z), lambda: coding_rate(z))
    return [
        "coding_rate on (4, 12, 785, 48) against the t x t formula",
        f"{literal * 1e3:.0f} ms / {ours * 1e3:.1f} ms = {times:.0f} times faster, "
        f"largest relative difference {error:.0e}",
    ]


def fused_attention_against_formula(shape: tuple[int, int, int, int]) -> list[str]:
    x = torch.randn(shape)
    with torch.inference_mode():
        formula, fused, times = ratio(
            lambda: softmax_rows(x, x) @ x, lambda: weighted_values(x, x, x)
        )
    return [
        f"fused attention on {shape} against the formula",
        f"{formula * 1e3:.1f} ms / {fused * 1e3:.1f} ms = {times:.1f} times faster",
    ]


def measuring_against_forward(arch: str, batch: int, measures: Sequence[str]) -> list[str]:
    model = build_model(arch).eval()
    size = model.config.image_size
    images = torch.randn(batch, 3, size, size)

    def measured() -> None:
        for state in model.unroll(images):
            for name in measures:
                MEASURES[name](state)

    with torch.inference_mode():
        slow, fast, times = ratio(measured, lambda: model(images))
    return [
        f"{len(measures)} measures of all layers against a forward pass, {arch}",
        f"{slow * 1e3:.0f} ms / {fast * 1e3:.0f} ms = {times:.2f} times",
    ]


def peak_memory(n_images: int) -> float:
    """Peak memory (MB) of a fresh process that measures so many images."""
    output = subprocess.run(
        [sys.executable, __file__, "--measure", str(n_images)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(output.stdout)


def measure_and_report_peak(n_images: int) -> None:
    model = build_model("crate_micro_patch6_72.creatures").eval()
    measure_layers(model, load_dataset("creatures", "dev", 72, n_images))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    torch.manual_seed(0)
    few, many = peak_memory(64), peak_memory(1024)
    rows = [
        rate_against_formula(),
        *map(
            fused_attention_against_formula, ((32, 4, 145, 32), (8, 4, 577, 32), (1, 6, 3601, 64))
        ),
        *(
            measuring_against_forward(arch, batch, measures)
            for arch, batch in (
                ("crate_micro_patch6_72.creatures", 32),
                ("vit_micro_patch6_72.creatures", 32),
                ("crate_small_patch8_224.cpal24", 2),
            )
            for measures in (PAPERS, list(MEASURES))
        ),
        [
            "peak memory of measure_layers, 1,024 images against 64",
            f"{many:.0f} MB / {few:.0f} MB = {many / few:.2f} times",
        ],
    ]
    width = max(len(name) for name, _ in rows)
    for name, result in rows:
        print(f"{name:<{width}}  {result}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_and_report_peak(int(sys.argv[2]))
    else:
        main()
