"""Where and in which precision the arithmetic runs, and whether torch.compile can work there."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sys
import sysconfig
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import psutil
import torch

from tasks.errors import ResourceError
from tasks.models.architectures import layers_of
from tasks.models.processes import ALONE, Processes, in_group, join, local_device

M_TRIM_THRESHOLD: Final = -1  # of glibc's <malloc.h>
M_MMAP_THRESHOLD: Final = -3
LARGEST_KEPT_BYTES: Final = 1 << 30  # the largest that mallopt takes is 2 GB - 1
NEVER: Final = -1
MOST_SHAPES: Final = 64  # for which a layer is compiled; a training meets a handful


class Wanted(Protocol):
    """What is asked of the machine; the section `runtime` of the params is such a thing."""

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def threads(self) -> int | None: ...

    @property
    def compile(self) -> Literal["auto"] | bool: ...

    @property
    def sharded(self) -> bool: ...


@dataclass(frozen=True)
class Device:
    """A torch device, `fp32` or `bf16`, the number of threads on a CPU, who else trains the same model, and whether training
    goes through torch.compile.
    """

    device: torch.device
    precision: str
    threads: int
    processes: Processes = ALONE
    compiled: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which matrix products run in bf16, or nothing where fp32 was picked."""
        return self._autocast(dtype=torch.bfloat16)

    def exactly(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which nothing is rounded, also inside of `autocast`."""
        return self._autocast(enabled=False)

    def _autocast(self, **options: Any) -> contextlib.AbstractContextManager[object]:
        if self.precision != "bf16":
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[object] = torch.autocast(self.device.type, **options)
        return context

    def prepare(self, model: Any) -> None:
        """Put a model of transformers on the device; with `compiled` its layers will run compiled.

        Layers are alike, so the compiler sees one and all run what it made. Only how their calls run changes: weights, their
        names and the class stay. A language model's blocks have one length, and for each number of them a layer is
        compiled anew, which is faster than code for any number; a classifier's batches differ in length too.
        """
        model.to(self.device)
        if self.compiled:
            _let_layers_compile()
            in_blocks = model.get_output_embeddings() is not None
            for layer in layers_of(model)[1]:
                layer.compile(dynamic=not in_blocks)

    def uncompiled(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which what is compiled runs as it is written: for a few batches of shapes of their own."""
        if self.compiled:
            written: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
            return written
        return contextlib.nullcontext()

    def prepare_to_read(self, model: Any) -> None:
        """Prepare a language model that never trains: the weights of its body's matrix products are kept as they are multiplied.

        Under autocast each product rounds its weights to bf16 first: what it computes stays the same to the bit.
        """
        if self.precision == "bf16":
            for module in model.base_model.modules():
                if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":  # GPT-2's linear layer
                    module.to(torch.bfloat16)
        self.prepare(model)

    def facts(self) -> dict[str, object]:
        """Return what a receipt says of it."""
        kind = str(self.device) if self.processes.count == 1 else self.device.type
        return {
            "device": kind,
            "precision": self.precision,
            "threads": self.threads,
            "processes": self.processes.count,
            "backend": self.processes.backend,
            **({"compiled": True} if self.compiled else {}),
            **({} if self.processes.shares is None else {"strategy": "fsdp"}),
            **({"launcher": "external"} if self.processes.external else {}),
        }


def pick_for_training(runtime: Wanted) -> Device:
    """Return what `pick` does for the section `runtime` of the params, with its choice of torch.compile.

    Raises ResourceError also when it is `true` and the machine lacks what the compiler needs; `auto` does without then.
    """
    device = pick(runtime.device, runtime.precision, runtime.threads)
    missing = lacks(device.device.type) if runtime.compile else None
    if runtime.compile is True and missing is not None:
        raise ResourceError(
            f"params.yaml: runtime.compile: true needs {missing}; without it use auto (which compiles where it can) or false"
        )
    return replace(device, compiled=bool(runtime.compile) and missing is None and not runtime.sharded)


def pick(device: str, precision: str, threads: int | None) -> Device:
    """Return the device asked for, with `auto` and null resolved; deterministic kernels are switched on.

    In a process of a group it is the one of this process, and the group has come together. Raises ResourceError when the
    device is not there.
    """
    grouped = in_group()
    kind = local_device(device) if grouped else _device(device)
    sharing = int(os.environ["LOCAL_WORLD_SIZE"]) if grouped else 1
    count = threads or max(1, usable_cores() // sharing)
    processes = join(kind, count) if grouped else ALONE
    torch.set_num_threads(count)
    torch.use_deterministic_algorithms(True, warn_only=kind.type != "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid: every new tensor written twice
    if kind.type == "cpu":
        keep_freed_memory()
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(kind) else "fp32"
    return Device(kind, precision, count, processes)


def _let_layers_compile() -> None:
    """Tell torch's compiler that layers are compiled by themselves."""
    import torch._dynamo  # seconds: not for those who do not compile

    torch._dynamo.config.recompile_limit = MOST_SHAPES
    torch._dynamo.config.skip_nnmodule_hook_guards = False  # what listens to one layer does not listen to the next
    # The compiler looks at the gradients of what comes in, and what comes out of the layer below has none of its own.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")


def usable_cores() -> int:
    """Return the physical cores that this process may run on: fewer than the machine has under taskset or a cpuset."""
    cores = psutil.cpu_count(logical=False) or 1
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return cores
    return min(cores, len(os.sched_getaffinity(0)))


def keep_freed_memory() -> bool:
    """Return whether the C library now keeps freed blocks of up to `LARGEST_KEPT_BYTES` for later; only glibc can be told to.

    Without it glibc gives every freed tensor of 32 MB or more back, and the system has to clear each page anew: 12,000 pages at
    each step for the gradient of 30,522 embeddings. The price: the process never shrinks below its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))


def _device(device: str) -> torch.device:
    """Return the device of a process that is alone; ResourceError when it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = torch.device(device)
    there = True
    if kind.type == "cuda":
        there = torch.cuda.is_available() and (kind.index or 0) < torch.cuda.device_count()
    elif kind.type == "mps":
        there = torch.backends.mps.is_available()
    if not there:
        raise ResourceError(f"params.yaml: runtime.device: {device!r} is not on this machine; use auto or cpu")
    return kind


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


def lacks(device_type: str) -> str | None:
    """Return what torch.compile needs for such a device and this machine does not have; None where it has everything.

    For a CPU it writes C++ that is built against Python's headers, for CUDA it needs Triton.
    """
    if device_type == "cpu":
        usual = "clang++" if sys.platform == "darwin" else "cl" if sys.platform == "win32" else "g++"
        compiler = os.environ.get("CXX") or usual
        if shutil.which(compiler) is None:
            return f"a C++ compiler ({compiler} is not on the PATH; CXX names another one)"
        headers = Path(sysconfig.get_path("include"))
        return None if (headers / "Python.h").exists() else f"Python's headers ({headers}/Python.h)"
    if device_type == "cuda":
        return None if importlib.util.find_spec("triton") is not None else "the package triton"
    return f"a device of another kind than {device_type}"
