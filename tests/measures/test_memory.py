"""Memory must not grow with the number of images measured."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from crate_analysis.walk import Reading
from crate_analysis import build_model, load_dataset
from crate_analysis.measures import measure_layers
model = build_model("crate_micro_patch6_72.creatures").eval()
images = load_dataset("creatures", "dev", 72, int(sys.argv[1]))
measure_layers(model, images, reading=Reading(batch_size=16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(n_images):
    command = [sys.executable, "-c", PROGRAM, str(n_images)]
    # One thread and one arena: how the allocator shares memory out is not what is measured.
    settings = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=settings)
    return int(run.stdout)


@pytest.mark.slow
def test_peak_memory_is_that_of_a_few_batches():
    assert peak(1024) < 1.1 * peak(64)
