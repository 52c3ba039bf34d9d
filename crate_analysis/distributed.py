"""The processes of one run: those that torchrun started, or this one alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.context import BaseContext

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one may be drawing or decoding images for all."""


def as_device(device: str | torch.device) -> torch.device:
    """The device that is meant. Raises ValueError for one that torch does not know or have.

    >>> as_device("cpu")
    device(type='cpu')
    """
    there = ["cpu"]
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found:
        numbered = range(torch.accelerator.device_count())
        there += [found.type, *(f"{found.type}:{index}" for index in numbered)]
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(_no_device(device, there)) from error
    if chosen.type != "cpu" and str(chosen) not in there:
        raise ValueError(_no_device(device, there))
    return chosen


def _no_device(device: object, there: list[str]) -> str:
    return f"device {str(device)!r} is not there; this machine has {', '.join(there)}"


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Within it, the processes that torchrun started know each other; gives this one's device.

    They talk through NCCL where `device` is a GPU, of which each takes its own, and through gloo
    where it is the CPU. Without torchrun there is this process only, and nothing to set up.
    """
    chosen = as_device(device)
    if not dist.is_torchelastic_launched():
        yield chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Which process this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's `values`, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def wait_for_all() -> None:
    """Go on when every process has come this far."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 goes through the block, and the others after it: one writes what all read."""
    if dist.is_initialized() and rank() > 0:
        dist.barrier()
    yield
    if dist.is_initialized() and rank() == 0:
        dist.barrier()


def end_with_parent(worker: int = 0) -> None:
    """From now on this process ends when the one that it works for does, however that ends.

    A process that was killed cannot tell its workers to stop, and a worker would wait for its next
    task for ever: a server that it was forked from lives as long as its workers do. To be called
    in the worker; `worker`, its number, is for callers that pass one.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and getattr(parent, "_sentinel", None) is not None:
        parent.join()  # whichever server this process was forked from
    else:  # joblib's workers: children without a word from their parent, which may be gone already
        expected = os.getppid() if parent is None else parent.pid
        while os.getppid() == expected:
            time.sleep(1)
    os._exit(1)


def process_context() -> BaseContext:
    """How processes start: from one that has loaded the library and has no other threads.

    To fork this one may hang, with its threads; to start each anew takes seconds to load torch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [name for name in sys.modules if name.startswith("crate_analysis")]
    )
    return context
