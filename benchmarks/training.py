"""What a training step costs: `python benchmarks/training.py [--device cuda]` prints one table.

A step is what training does with a batch: the way to the device, forward, backward and AdamW.
Ratios are taken between things timed alternately in this one run, since machines are noisy.
CRATE's yardstick is its published forward pass, written out here and given the same weights; that
of bf16 is a large matrix product.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from crate_analysis import build_model
from crate_analysis.models import UnrolledModel
from crate_analysis.models.crate import CRATE
from crate_analysis.training.images import CachedImages
from crate_analysis.training.loop import Part, layer_matrices, split_batch
from crate_analysis.training.recipe import Precision, SupervisedRecipe
from crate_analysis.training.supervised import Classification


class Case(NamedTuple):
    arch: str
    batch_size: int
    rounds: int


CASES = {
    "cpu": [
        Case("crate_micro_patch6_72.creatures", 128, 5),
        Case("vit_micro_patch6_72.creatures", 128, 5),
        Case("crate_small_patch8_224.cpal24", 2, 3),
    ],
    "cuda": [
        Case("crate_small_patch8_224.cpal24", 64, 15),
        Case("crate_micro_patch6_72.creatures", 1024, 15),
        Case("vit_micro_patch6_72.creatures", 1024, 15),
    ],
}
MATMUL = {"cpu": 2048, "cuda": 8192}  # side of the matrices
TOLERANCE = 1e-4  # of the logits


class Variant(NamedTuple):
    """A way to carry out the same training."""

    precision: Precision
    accumulate: int = 1
    compiled: bool = False
    literal: bool = False


VARIANTS = {
    "literal fp32": Variant("fp32", literal=True),
    "ours fp32": Variant("fp32"),
    "ours fp32, accumulate 2": Variant("fp32", accumulate=2),
    "literal bf16": Variant("bf16", literal=True),
    "ours bf16": Variant("bf16"),
    "ours bf16, compiled": Variant("bf16", compiled=True),
}
OPTIONS = [  # each with what it is compared to
    ("ours fp32", "literal fp32"),
    ("ours bf16", "literal bf16"),
    ("ours bf16", "ours fp32"),
    ("ours bf16, compiled", "ours bf16"),
    ("ours fp32, accumulate 2", "ours fp32"),
]


class LiteralCrate(CRATE):
    """CRATE's parameters in the published forward pass, formula by formula."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        config, count = self.config, len(images)
        grid, patch = config.grid, config.patch_size
        cells = images.reshape(count, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
        _, norm_pixels, linear, norm_patches = self.to_patch_embedding
        patches = norm_patches(linear(norm_pixels(cells.reshape(count, grid**2, -1))))
        z = torch.cat([self.cls_token.expand(count, -1, -1), patches], 1) + self.pos_embedding
        layers: Any = self.transformer.layers
        for attention, sparsification in layers:
            z = z + self.mssa(attention.fn, attention.norm(z))
            z = self.ista(sparsification.fn.weight, sparsification.norm(z))
        return self.mlp_head(z[:, 0])

    def mssa(self, maps: Any, z: torch.Tensor) -> torch.Tensor:
        count, tokens, dim = z.shape
        heads, p = self.config.heads, self.config.head_dim
        w = maps.qkv(z).reshape(count, tokens, heads, p).permute(0, 2, 1, 3)
        rows = torch.softmax(w @ w.transpose(-1, -2) * p**-0.5, -1)
        return maps.to_out((rows @ w).permute(0, 2, 1, 3).reshape(count, tokens, dim))

    def ista(self, dictionary: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        eta, sparsity = self.config.step_size, self.config.sparsity
        dt_d_x = F.linear(F.linear(x, dictionary), dictionary.T)
        dt_x = F.linear(x, dictionary.T)
        return F.relu(x + eta * (dt_x - dt_d_x) - eta * sparsity)


class RandomImages(CachedImages):
    def __init__(self, count: int, size: int, n_classes: int) -> None:
        generator = np.random.default_rng(0)
        self.images = generator.integers(256, size=(count, 3, size, size), dtype=np.uint8)
        self.labels = generator.integers(n_classes, size=count)
        self.checks = np.array([zlib.crc32(image) for image in self.images])


class Training:
    """A training under way, taken one step further at a time as `loop.run` does it."""

    def __init__(self, case: Case, variant: Variant, device: torch.device) -> None:
        torch.manual_seed(0)  # all variants start from the same weights
        model = build_model(case.arch)
        if variant.literal:
            model = literal(model)
        size, n_classes = model.config.image_size, model.config.num_classes
        self.data = RandomImages(case.batch_size, size, n_classes)
        self.recipe = SupervisedRecipe(
            arch=case.arch,
            n_train=case.batch_size,
            batch_size=case.batch_size,
            precision=variant.precision,
        )
        self.task = Classification(model, self.recipe, self.data).to(device).train()
        self.optimizer = self.recipe.make_optimizer(
            self.task.parameter_groups(), layer_matrices(self.task)
        )
        self.parts = split_batch(case.batch_size, 1, variant.accumulate)[0]
        self.device = device
        if variant.compiled:
            model.compile()

    def gradients(self) -> None:
        indices = self.recipe.batch_indices(0)
        self.optimizer.zero_grad()
        for first, last in self.parts:
            images, labels = self.data.batch(indices[first:last])
            loss, _ = self.task(
                images.to(self.device), labels.to(self.device), Part(0, first, last)
            )
            (loss / len(self.parts)).backward()
            loss.item()  # for the log

    def step(self) -> None:
        self.gradients()
        self.optimizer.step()


def literal(model: UnrolledModel) -> UnrolledModel:
    """A CRATE's weights in the published forward pass, which must give the same logits."""
    copy = LiteralCrate(model.config)
    copy.load_state_dict(model.state_dict())
    with torch.inference_mode():
        images = torch.randn(2, 3, model.config.image_size, model.config.image_size)
        difference = (copy(images) - model(images)).abs().max().item()
    assert difference < TOLERANCE, f"{model.name}: logits differ by {difference:.1e}"
    return copy


class Timings(NamedTuple):
    """Of one case; the matrix product is among what is timed."""

    seconds: dict[str, list[float]]
    """Of a step, round by round."""
    first: dict[str, float]
    """Of the first step, with compiling."""
    flops: int
    """Of our step, in its matrix products."""

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, base: str) -> list[float]:
        """How many times as fast as `base`, round by round."""
        pairs = zip(self.seconds[base], self.seconds[name], strict=True)
        return [slow / fast for slow, fast in pairs]


def measure(case: Case, names: list[str], device: torch.device) -> Timings:
    trainings = {name: Training(case, VARIANTS[name], device) for name in names}
    with FlopCounterMode(display=False) as counter:
        trainings["ours fp32"].gradients()
    side = MATMUL[device.type]
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    runs: dict[str, Callable[[], object]] = {name: t.step for name, t in trainings.items()}
    runs["matmul"] = lambda: a @ b
    first = {name: seconds_of(run, device) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(case.rounds):
        for name, run in runs.items():
            seconds[name].append(seconds_of(run, device))
    return Timings(seconds, first, counter.get_total_flops())


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def can_compile(device: torch.device) -> bool:
    """Whether the simplest of functions goes through torch.compile: it needs a compiler."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1, device=device))
    except torch._dynamo.exc.TorchDynamoException:
        return False
    return True


def cell(case: Case, timings: Timings, name: str) -> str:
    """Images a second; for CRATE the ratio to the published pass in fp32, too."""
    if name not in timings.seconds:
        return "no compiler" if VARIANTS[name].compiled else ""
    rate = f"{case.batch_size / timings.median(name):.3g}"
    if "literal fp32" not in timings.seconds:
        return rate
    return f"{rate} ({statistics.median(timings.ratios(name, 'literal fp32')):.2f}x)"


def share_of_peak(timings: Timings, name: str, peak_flops: int) -> str:
    """Operations a second as a share of those in the matrix product timed beside the step."""
    if name not in timings.seconds:
        return "no compiler"
    share = statistics.median(timings.ratios(name, "matmul")) * timings.flops / peak_flops
    return f"{share:.0%}"


def effect(timings: Timings, name: str, base: str) -> str:
    """An option's ratio, with its range over the rounds."""
    if name not in timings.seconds or base not in timings.seconds:
        return "no compiler" if VARIANTS[name].compiled else ""
    ratios = timings.ratios(name, base)
    verdict = "faster" if min(ratios) > 1 else "slower" if max(ratios) < 1 else "unclear"
    text = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}), {verdict}"
    if VARIANTS[name].compiled:
        text += f", {timings.first[name] - timings.median(name):.0f} s to compile"
    return text


def print_table(rows: list[list[str]]) -> None:
    """As Markdown; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(padded)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=sorted(CASES), default="cpu")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here; leave the option out")
    compiles = can_compile(device)
    results = {}
    for case in CASES[device.type]:
        names = [
            name
            for name, variant in VARIANTS.items()
            if (compiles or not variant.compiled)
            and (case.arch.startswith("crate") or not variant.literal)
        ]
        results[case] = measure(case, names, device)

    where = f"CPU threads: {torch.get_num_threads()}"
    if device.type == "cuda":
        where = torch.cuda.get_device_name()
    print(f"Images a second in training, and times the literal fp32; {where}")
    heads = ["model, batch", *VARIANTS]
    labels = {case: f"{case.arch}, {case.batch_size}" for case in results}
    print_table(
        [heads, *([labels[c], *(cell(c, t, n) for n in VARIANTS)] for c, t in results.items())]
    )

    side = MATMUL[device.type]
    peak_flops = 2 * side**3
    peak = peak_flops / statistics.median(t.median("matmul") for t in results.values())
    print(f"\nShare of the bf16 peak, {peak / 1e12:.3g} TFLOP/s in a product of side {side}")
    for case, timings in results.items():
        ours, compiled = (
            share_of_peak(timings, name, peak_flops)
            for name in ("ours bf16", "ours bf16, compiled")
        )
        work = timings.flops / case.batch_size / 1e9
        print(f"{labels[case]}: {ours}; compiled: {compiled}; {work:.3g} GFLOP an image")

    for name, base in OPTIONS:
        print(f"\n{name} against {base}")
        for case, timings in results.items():
            if text := effect(timings, name, base):
                print(f"{labels[case]}: {text}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # so that compiling is timed whole
        main()
