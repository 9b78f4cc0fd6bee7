"""Where and in which precision the arithmetic runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from tasks.errors import ResourceError


@dataclass(frozen=True)
class Device:
    """A torch device, `fp32` or `bf16`, and the number of threads on a CPU."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which matrix products run in bf16, or nothing where fp32 was picked."""
        if self.precision == "bf16":
            mixed: contextlib.AbstractContextManager[object] = torch.autocast(self.device.type, dtype=torch.bfloat16)
            return mixed
        return contextlib.nullcontext()

    def facts(self) -> dict[str, object]:
        """Return what a receipt says of it."""
        return {"device": str(self.device), "precision": self.precision, "threads": self.threads}


def pick(device: str, precision: str, threads: int | None) -> Device:
    """Return the device asked for, with `auto` and null resolved; deterministic kernels are switched on.

    Raises ResourceError when the device is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = torch.device(device)
    if kind.type == "cuda" and (not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()):
        raise ResourceError(f"params.yaml: runtime.device: {device!r} is not on this machine; use auto or cpu")
    if kind.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError(f"params.yaml: runtime.device: {device!r} is not on this machine; use auto or cpu")
    count = threads or psutil.cpu_count(logical=False) or 1
    torch.set_num_threads(count)
    torch.use_deterministic_algorithms(True, warn_only=kind.type != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid: every new tensor written twice
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(kind) else "fp32"
    return Device(kind, precision, count)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bf16 matrix products run on their own units there; emulated ones are slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    flags = cpu_flags()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature names where the system tells them (Linux), else an empty set."""
    place = Path("/proc/cpuinfo")
    if not place.exists():
        return frozenset()
    for line in place.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
