"""The one door to Accelerate: several processes that train one model together, each on its share of every batch's rows.

A process finds its group in the environment, by the names that torchrun gives them: RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Without them it is alone: nothing is loaded, and every method of `Processes`
gives back what it was given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.children import BACKEND, MEETING, STRATEGY
from tasks.errors import ResourceError
from tasks.models.sharding import Shares

Rows = NDArray[np.int64]
BACKENDS: Final = {"cpu": "gloo", "cuda": "nccl"}  # what `auto` means, by kind of device
PATIENCE: Final = timedelta(hours=12)  # others wait while the first measures; the launcher notices who dies


class Processes:
    """The group of processes that this one trains in; `rank` counts from 0, and the first writes every file."""

    def __init__(
        self, count: int = 1, rank: int = 0, backend: str | None = None, accelerator: Any = None, shares: Shares | None = None
    ) -> None:
        """Take the group, and with `shares` how it cuts the model that it trains into one share for each process."""
        self.count, self.rank, self.backend, self._accelerator = count, rank, backend, accelerator
        self.shares = shares
        self.first = rank == 0
        self._share = 1.0

    @property
    def external(self) -> bool:
        """Whether somebody else started the processes, on whatever machines."""
        return self.count > 1 and MEETING in os.environ

    def share(self, rows: Rows) -> tuple[Rows, float]:
        """Return this process's rows of a batch and their share of it; where none is left, one row of share 0."""
        part = rows[self.rank :: self.count]  # not neighbours: rows are sorted by length
        self._share = len(part) / len(rows)
        return (part if len(part) else rows[:1]), self._share

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module so that gradients are means over the processes; all start with the weights of the first."""
        if self.shares is not None:
            return self.shares.cut(module)
        return module if self._accelerator is None else self._accelerator.prepare(module)

    def gradients_stay(self, module: nn.Module, until: bool) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the gradients of a wrapped module are summed up here, and not yet over the processes."""
        if self._accelerator is None or until:
            return contextlib.nullcontext()
        if self.shares is not None:
            return self.shares.gradients_stay(module)
        context: contextlib.AbstractContextManager[None] = self._accelerator.no_sync(module)
        return context

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over all rows of the last `share`, given the mean over those of this process; no gradient."""
        if self._accelerator is None:
            return value.detach()
        mean: Tensor = self._accelerator.reduce(value.detach() * self._share, reduction="sum")
        return mean

    def sum(self, value: float) -> float:
        """Return the sum over the processes, in double precision."""
        if self._accelerator is None:
            return value
        place = torch.tensor(value, dtype=torch.float64, device=self._accelerator.device)
        return float(self._accelerator.reduce(place, reduction="sum"))

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        values = [value] * self.count
        if self._accelerator is not None:
            torch.distributed.all_gather_object(values, value)
        return values

    def of_first(self, make: Callable[[], Any]) -> Any:
        """Return what `make` gives in the first process; it is not called in the others."""
        values = [make() if self.first else None]
        if self._accelerator is not None:
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def in_turn(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that the first process goes through before the others."""
        if self._accelerator is None:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[None] = self._accelerator.main_process_first()
        return context

    def end_others(self) -> None:
        """End every process but the first, once all have come here: what follows, files and measurements, is the first's.

        The group itself is never taken down but ends with its processes: torch would join gloo's threads with Python's lock held,
        for which they may be waiting.
        """
        if self._accelerator is None:
            return
        self._accelerator.wait_for_everyone()
        if not self.first:
            raise SystemExit(0)


ALONE: Final = Processes()


def in_group() -> bool:
    """Return whether this process has been started as one of a group."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def local_device(device: str) -> torch.device:
    """Return the device of this process of a group; ResourceError when there is none for it."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return torch.device(device)
    if device != "cuda":
        raise ResourceError(f"params.yaml: runtime.device: {device!r} is one device; runtime.launcher takes cuda, cpu or auto")
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        wanted = os.environ["LOCAL_WORLD_SIZE"]
        raise ResourceError(f"params.yaml: runtime.launcher.processes: {wanted}, and this machine has {there} GPUs: one each")
    return torch.device("cuda", number)


def join(device: torch.device, threads: int) -> Processes:
    """Return the group of this process once all of it have come here; ResourceError when its backend does not fit."""
    backend = os.environ.get(BACKEND, "auto")
    if backend == "auto":
        backend = BACKENDS[device.type]
    if backend == "nccl" and device.type != "cuda":
        raise ResourceError("params.yaml: runtime.launcher.backend: nccl works between GPUs; use gloo, or auto")
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    if MEETING in os.environ:
        _meet_at(os.environ[MEETING], backend)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else Accelerate chooses a number, and warns of it
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",  # `Device.autocast` sees to it
        kwargs_handlers=[
            InitProcessGroupKwargs(backend=backend, timeout=PATIENCE),
            # a classifier leaves parts of some models idle, and extra losses end before the training does
            DistributedDataParallelKwargs(find_unused_parameters=True),
        ],
    )
    sharded = os.environ.get(STRATEGY) == "fsdp"
    shares = Shares(device, accelerator.num_processes) if sharded else None
    return Processes(accelerator.num_processes, accelerator.process_index, backend, accelerator, shares)


def store_at(address: str, port: int, host: bool, patience: timedelta) -> Any:
    """Return the store of a group, through which its processes find each other.

    With `host` it is made here; otherwise whoever made it is waited for, and torch's DistError raised when nobody has in time.
    """
    return torch.distributed.TCPStore(address, port, None, host, timeout=patience, wait_for_workers=False)


def _meet_at(meeting: str, backend: str) -> None:
    """Bring the process group together at a place of its own in the store, where one training after the other finds room."""
    held = store_at(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), host=False, patience=PATIENCE)
    store = torch.distributed.PrefixStore(f"{meeting}/torch", held)
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
