"""What unrolling costs beside the bare formulas, and what an edit costs: one table.

`python benchmarks/unroll.py [FOLDER]` times a forward pass against the same formulas written as one
function without states, and a pass with edits against one without. FOLDER, another checkout of this
project, adds the forward pass of its code. Ratios are taken between things timed alternately in
this one run, and of computing time on one thread, since machines are noisy and shared.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from crate_analysis import build_model
from crate_analysis.interventions import ablate_head, change
from crate_analysis.models import UnrolledModel
from crate_analysis.models.unrolled import merge_heads, split_heads, weighted_values

ROUNDS = 15
CASES = [  # architecture, images in a batch
    ("crate_micro_patch6_72.creatures", 16),
    ("vit_micro_patch6_72.creatures", 16),
    ("crate_tiny_patch8_224.cpal24", 1),
    ("vit_tiny_patch16_224", 1),
]


def bare_forward(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Both families' formulas in a row, with nothing kept from one line to the next."""
    z = model.embed(images)
    if model.config.family == "crate":
        for attention, coding in model.transformer.layers:
            w = split_heads(attention.fn.qkv(attention.norm(z)), model.config.heads)
            z = z + attention.fn.to_out(merge_heads(weighted_values(w, w, w)))
            z = coding.fn(coding.norm(z))
    else:
        for block in model.blocks:
            normed = block.norm1(z)
            k, q, v = (block.attn.part(normed, part) for part in (1, 0, 2))
            z = z + block.attn.proj(merge_heads(weighted_values(q, k, v)))
            z = z + block.mlp(block.norm2(z))
    return model.classify(z)


def ratio(ours: Callable[[], object], other: Callable[[], object]) -> tuple[float, float, float]:
    """Median computing times of both (s), and the median of their ratio, round by round."""
    times = []
    for turn in range(ROUNDS + 2):
        pair = [0.0, 0.0]
        for place in (0, 1) if turn % 2 else (1, 0):
            start = time.process_time()
            (ours, other)[place]()
            pair[place] = time.process_time() - start
        times.append(pair)
    mine, others = zip(*times[2:], strict=True)  # the first rounds warm up
    ratios = [a / b for a, b in zip(mine, others, strict=True)]
    return statistics.median(mine), statistics.median(others), statistics.median(ratios)


def from_checkout(folder: str, arch: str, weights: dict[str, torch.Tensor]) -> Any:
    """The same model by the code of another checkout, which is imported beside this one."""
    mine = {name: sys.modules.pop(name) for name in list(sys.modules) if is_ours(name)}
    sys.path.insert(0, folder)
    try:
        model = importlib.import_module("crate_analysis.models").build_model(arch).eval()
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(mine)
    model.load_state_dict(weights)
    return model


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "crate_analysis"


def rows(arch: str, batch: int, folder: str | None) -> list[tuple[str, float, float, float]]:
    model: UnrolledModel = build_model(arch).eval()
    size = model.config.image_size
    images = torch.randn(batch, 3, size, size)
    middle = len(model.layers) // 2
    compared: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "without edits / bare formulas": (
            lambda: model(images),
            lambda: bare_forward(model, images),
        )
    }
    if folder:
        other = from_checkout(folder, arch, model.state_dict())
        assert torch.equal(model(images), other(images))
        compared["without edits / other checkout"] = (lambda: model(images), lambda: other(images))
    same = change(middle, "attention", lambda value, state: value)
    for name, edit in (("a head", ablate_head(middle, 0)), ("attention", same)):
        compared[f"{name} of one layer edited / without edits"] = (
            lambda edit=edit: model(images, edits=[edit]),
            lambda: model(images),
        )
    torch.testing.assert_close(bare_forward(model, images), model(images))
    return [(f"{arch}, {name}", *ratio(*pair)) for name, pair in compared.items()]


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = sys.argv[1] if sys.argv[1:] else None
    for arch, batch in CASES:
        for name, mine, other, times in rows(arch, batch, folder):
            print(f"{name:<80}  {mine * 1e3:6.1f} ms / {other * 1e3:6.1f} ms = {times:.3f}")


if __name__ == "__main__":
    main()
