"""Where the arithmetic runs, and how its memory is kept."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.errors import ResourceError
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import Device, lacks, pick_for_training, usable_cores
from tasks.models.predict import predicting
from tasks.params.base import Runtime
from tests.causal import write_decoder

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


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_teacher_that_is_only_read_says_the_same_in_half_the_memory(tmp_path: Path, family: str) -> None:
    model = load_causal_lm(write_decoder(family, tmp_path / family)).eval()
    device, ids = Device(torch.device("cpu"), "bf16", 1), torch.arange(24).reshape(2, 12)

    def said() -> torch.Tensor:
        with torch.no_grad(), device.autocast():
            head = predicting(model, ids)
        return head.hidden_ND.float()

    def bytes_of() -> int:
        return sum(p.numel() * p.element_size() for p in model.base_model.parameters() if p.ndim == 2)

    whole, before = said(), bytes_of()
    embeddings = sum(p.numel() * 4 for name, p in model.named_parameters() if any(k in name for k in ("embed", "wte", "wpe")))
    device.prepare_to_read(model)
    assert torch.equal(said(), whole)
    assert bytes_of() - embeddings == (before - embeddings) // 2
    assert model.get_input_embeddings().weight.dtype == torch.float32


def test_compiling_is_refused_where_there_is_no_compiler_and_auto_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    runtime = {"device": "cpu", "precision": "fp32", "threads": 1, "launcher": None}
    with pytest.raises(ResourceError, match=r"runtime\.compile: true needs a C\+\+ compiler .* use auto"):
        pick_for_training(Runtime(compile=True, **runtime))
    assert not pick_for_training(Runtime(compile="auto", **runtime)).compiled
    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "my-c++")
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    assert lacks("cpu") == f"Python's headers ({tmp_path}/Python.h)"
    (tmp_path / "Python.h").touch()
    assert lacks("cpu") is None
    assert pick_for_training(Runtime(compile="auto", **runtime)).compiled
    sharded = runtime | {"launcher": {"processes": 2, "backend": "gloo", "strategy": "fsdp"}}
    assert not pick_for_training(Runtime(compile="auto", **sharded)).compiled
    assert lacks("mps") is not None
