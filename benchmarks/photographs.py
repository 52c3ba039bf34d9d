"""What a network of published size costs on photographs: time and peak memory, by side and task.

`python benchmarks/photographs.py [MODEL]` (a spec, or an architecture for random weights; default:
DINOv2's ViT-S/14 with random weights, whose cut is found sooner than that of a real one) runs each
task in a process of its own, on one image: the attention of `[CLS]` in every layer, the
attention of two patches in the last layer, the same by way of the layer's whole attention matrix,
and MaskCut.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

from crate_analysis import build_model, load_model
from crate_analysis.models import ARCHS, UnrolledModel
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.probes import patch_attention
from crate_analysis.segmentation import maskcut

ARCH = "vit_small_patch14_518.dinov2"
FACTORS = (1.0, 1.5, 2.0)
THREADS = 2


def cls_of_every_layer(model: UnrolledModel, images: torch.Tensor) -> None:
    for state in model.unroll(images):
        state.attention()


def two_patches(model: UnrolledModel, images: torch.Tensor) -> None:
    patch_attention(model, images, torch.tensor([[[0, 0], [5, 5]]]), -1)


def whole_matrix(model: UnrolledModel, images: torch.Tensor) -> None:
    *_, state = model.unroll(images)
    state.attention(None)


def objects(model: UnrolledModel, images: torch.Tensor) -> None:
    *_, state = model.unroll(images)
    maskcut(merge_heads(state.projections)[0, state.patches], model.patch_grid(images))


TASKS = {task.__name__: task for task in (cls_of_every_layer, two_patches, whole_matrix, objects)}


@torch.inference_mode()
def measure(arch: str, task: str, factor: float) -> None:
    """Prints tokens, seconds and MB of one case; the rest of the process is imports and weights."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = build_model(arch).eval() if arch in ARCHS else load_model(arch)
    patch = model.config.patch_size
    side = patch * round(factor * model.config.grid)
    images = torch.randn(1, 3, side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    TASKS[task](model, images)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((side // patch) ** 2, f"{wall:.1f}", f"{cpu:.1f}", (peak - before) // 1000)


def main() -> None:
    arch = sys.argv[1] if sys.argv[1:] else ARCH
    print(f"{arch}, one image, {THREADS} threads; memory is what the task adds at its peak")
    print(f"{'task':<20} {'side':>6} {'patches':>8} {'s':>6} {'CPU s':>6} {'MB':>6}")
    for task in TASKS:
        for factor in FACTORS:
            command = [sys.executable, __file__, arch, task, str(factor)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            patches, wall, cpu, peak = done.stdout.split()
            print(f"{task:<20} {factor:>5.1f}x {patches:>8} {wall:>6} {cpu:>6} {peak:>6}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    else:
        main()
