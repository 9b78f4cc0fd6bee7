"""Where the arithmetic runs, and how its memory is kept."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from tasks.models.devices import usable_cores

FAULTS = """
import resource, sys
import torch
from tasks.models.devices import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(40):
    torch.ones(12_000_000)  # 48 MB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be told to keep memory")
def test_a_large_tensor_reuses_the_pages_of_the_one_before() -> None:
    faults = {}
    for how in ("keep", "give_back"):
        command = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["give_back"] > 40 * 48_000_000 // 4096, "the C library keeps pages by itself now: we need not ask"
    assert faults["keep"] < faults["give_back"] / 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an operating system that can pin a process")
def test_a_pinned_process_counts_only_the_cores_it_may_use() -> None:
    count = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    count += "from tasks.models.devices import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
