"""The group of processes that somebody else started: torchrun, srun, or whatever sets the same names in the environment."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from tasks import children
from tasks.errors import ResourceError

NEEDED: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# What srun calls what torchrun calls otherwise.
OF_SLURM: Final = {"SLURM_PROCID": "RANK", "SLURM_NTASKS": "WORLD_SIZE", "SLURM_LOCALID": "LOCAL_RANK"}
SLURM_PORTS: Final = 15_000  # the first of ten thousand: one for the last four digits of a job's number
KEY: Final = "params.yaml: runtime.launcher.processes: external"
LOOK_SECONDS: Final = 0.2
CONNECT: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class Group:
    """A process of a group: which one of how many, here and over all, and where the store of the group is."""

    rank: int
    count: int
    local_rank: int
    local_count: int
    address: str
    port: int
    attempt: str  # torchrun starts a group anew after a fault, with the same store
    hosted: bool  # whether who started the group holds its store; else the first process does

    def names(self) -> dict[str, str]:
        """Return the environment by which torch knows the group."""
        names = {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.count),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_count),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }
        if self.address in (children.LOOPBACK, "localhost"):  # all of it is on this machine
            names |= {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", children.loopback_name())}
        return names

    def dumps(self) -> str:
        """Return it for `children.GROUP`."""
        return json.dumps(asdict(self))


def read_group(environ: Mapping[str, str]) -> Group:
    """Return the group of this process; ResourceError where nobody started one, or it is of one process."""
    if children.GROUP in environ:
        return Group(**json.loads(environ[children.GROUP]))
    names = {**_of_slurm(environ), **environ}
    missing = [name for name in NEEDED if not names.get(name)]
    if missing:
        raise ResourceError(
            f"{KEY} needs {', '.join(missing)} in the environment, which torchrun and srun set: start the run by one of them, on "
            "each node `torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint HOST:PORT --no-python "
            "compactlm join`, or set runtime.launcher: null"
        )
    numbers = {name: names.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")}
    for name, text in numbers.items():
        if not text.isdecimal():
            raise ResourceError(f"{KEY}: {name}={text} in the environment is no number; torchrun and srun set it")
    count, rank = int(numbers["WORLD_SIZE"]), int(numbers["RANK"])
    if count < 2 or rank >= count:
        raise ResourceError(
            f"{KEY}: the group that was started has WORLD_SIZE={count} and this is RANK={rank}; a group has two processes or "
            "more, counted from 0: start more nodes, or set runtime.launcher: null"
        )
    return Group(
        rank=rank,
        count=count,
        local_rank=int(numbers["LOCAL_RANK"]),
        local_count=max(1, int(numbers["LOCAL_WORLD_SIZE"])),
        address=names["MASTER_ADDR"],
        port=int(numbers["MASTER_PORT"]),
        attempt=environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        hosted=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _of_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """Return torch's names for what srun tells a task; none outside of a step of Slurm."""
    if "SLURM_PROCID" not in environ or "RANK" in environ:
        return {}
    names = {name: environ[slurm] for slurm, name in OF_SLURM.items() if slurm in environ}
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    names["MASTER_ADDR"] = first_node(nodes)
    names["MASTER_PORT"] = str(SLURM_PORTS + int(environ.get("SLURM_JOB_ID", "0")[-4:]))
    names["LOCAL_WORLD_SIZE"] = re.split(r"[(,]", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0]
    return names


def first_node(nodes: str) -> str:
    """Return the first of Slurm's list of nodes: `gpu[03-05,9],login` gives gpu03."""
    found = re.match(r"([^\[,]*)(?:\[(\d+))?", nodes)
    return "" if found is None else found[1] + (found[2] or "")


class Store:
    """The store of a group: small values by name, which all its processes see."""

    def __init__(self, group: Group, host: bool, patience: float) -> None:
        """Connect; with `host` the store is made here where nobody else holds it. ResourceError when nobody answers in time."""
        from torch.distributed import DistError, PrefixStore

        from tasks.models.processes import store_at

        self.group = group
        try:
            self._held = store_at(group.address, group.port, host and not group.hosted, timedelta(seconds=patience))
        except (DistError, RuntimeError) as error:
            place = f"{group.address}:{group.port}"
            raise ResourceError(
                f"{KEY}: rank {group.rank} of {group.count} does not reach the group at {place} (MASTER_ADDR, MASTER_PORT) "
                f"within {patience:.0f} seconds: {str(error).splitlines()[0][:200]}. Is the first process started, is the port "
                "free, and is it open between the nodes?"
            ) from None
        self._held.set_timeout(CONNECT)
        self._store = PrefixStore(f"compactlm/{group.attempt}", self._held)

    def put(self, name: str, value: Any) -> None:
        """Store a value that JSON can say."""
        self._store.set(name, json.dumps(value))

    def look(self, name: str) -> Any:
        """Return a value, None where there is none yet."""
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def count_up(self, name: str) -> int:
        """Return how often this was called with a name, by all processes together."""
        return int(self._store.add(name, 1))

    def gather(self, name: str, value: Any, patience: float, each: Callable[[], None] = lambda: None) -> list[Any]:
        """Return the values of all processes for a name, in their order; ResourceError for those that do not come in time.

        `each` is called while others are waited for, and may raise.
        """
        self.put(f"{name}/{self.group.rank}", value)
        values: list[Any] = [None] * self.group.count
        deadline = time.monotonic() + patience
        while missing := [rank for rank, there in enumerate(values) if there is None]:
            for rank in missing:
                values[rank] = self.look(f"{name}/{rank}")
            if None in values:
                each()
                if time.monotonic() > deadline:
                    absent = ", ".join(str(rank) for rank, there in enumerate(values) if there is None)
                    raise ResourceError(
                        f"{KEY}: of {self.group.count} processes, those with rank {absent} did not appear within {patience:.0f} "
                        "seconds; start the same command on all nodes, and look at what it says there"
                    )
                time.sleep(LOOK_SECONDS)
        return values


def host_name() -> str:
    """Return how this machine calls itself."""
    return socket.gethostname()
