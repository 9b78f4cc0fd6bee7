"""How the processes of a stage that somebody else started come together: the same work on the same bytes, or a sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks import children
from tasks.errors import ParamsError, StageError, UserError
from tasks.files import digest, listing_sha256
from tasks.lineage.begun import Begun
from tasks.params.base import Launcher
from tasks.running.group import Store, host_name, read_group
from tasks.running.launch import TRAINING

APPEAR_SECONDS: Final = 300.0  # for the other processes of a stage; nodes do not start at the same moment
WORK_SECONDS: Final = 12 * 3600.0  # under `compactlm join`, which sees who dies, they may be in another training
GONE: Final = re.compile(r"gloo|NCCL|TCPStore|Connection (closed|reset|refused)|Broken pipe")

_held: list[Store] = []  # where this process holds the group's store, it does so to its end


def is_bystander(stage: str, environ: Mapping[str, str]) -> bool:
    """Return whether this process of a group has nothing to do: a stage that does not train is the first one's alone."""
    grouped = children.GROUP not in environ and int(environ.get("WORLD_SIZE") or 1) > 1
    return grouped and stage not in TRAINING and int(environ.get("RANK") or 0) > 0


def refuse_idle_others(environ: Mapping[str, str]) -> None:
    """Raise ParamsError where a training that is for one process, or those of a machine, was started by `compactlm join`."""
    if children.GROUP in environ:
        raise ParamsError(
            "params.yaml: runtime.launcher: must be {processes: external, backend: auto, strategy: ddp} (or fsdp) where "
            "`compactlm join` runs, for the other nodes would do nothing; set it, or run without it"
        )


def leave_group(environ: dict[str, str] | os._Environ[str]) -> None:
    """Take the group out of the environment of a stage that works alone."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        environ.pop(name, None)


def meet(argv: Sequence[str], launcher: Launcher, begun: Begun, inputs: Sequence[Path]) -> None:
    """Bring the processes of a training together, and leave in the environment how torch finds their group.

    UserError where one of them did not come, or would work with other code, params or files than the first.
    """
    group = read_group(os.environ)
    joined = children.GROUP in os.environ
    store = Store(group, host=group.rank == 0 and not joined, patience=APPEAR_SECONDS)
    _held.append(store)
    meeting = os.environ.get(children.MEETING, "stage/direct")
    if joined and group.rank == 0:
        number = store.count_up("requests")
        store.put(f"request/{number}", {"argv": list(argv), "stage": os.environ.get("DVC_STAGE", "")})
        meeting = meeting_of(number)
    facts = store.gather(meeting, _facts(begun, inputs), WORK_SECONDS if joined else APPEAR_SECONDS)
    if others := _differences(facts):
        raise UserError(f"{begun.stage or argv[0]}: runtime.launcher.processes: external: " + "\n".join(others))
    os.environ.update(group.names())
    os.environ[children.MEETING] = f"compactlm/{group.attempt}/{meeting}"
    os.environ[children.BACKEND] = launcher.backend
    os.environ[children.STRATEGY] = launcher.strategy


def meeting_of(number: int) -> str:
    """Return where the processes of the training meet that is the n-th of a run."""
    return f"stage/{number}"


def lost(error: Exception, stage: str) -> StageError | None:
    """Return in words that another process of the group is gone, where this error says so."""
    if children.MEETING not in os.environ or not isinstance(error, RuntimeError) or not GONE.search(str(error)):
        return None
    return StageError(
        stage,
        f"another process of the group ended or is out of reach ({str(error).splitlines()[0][:200]}), so this one (rank "
        f"{os.environ['RANK']}) ends as well. See what the others say, and start all nodes again: training goes on from the last "
        "saved state",
    )


def _facts(begun: Begun, inputs: Sequence[Path]) -> dict[str, Any]:
    import torch

    params = begun.params.model_dump(mode="json")
    runtime = params.pop("runtime")
    return {
        "host": host_name(),
        "params.yaml": params,
        "runtime.precision": runtime["precision"],
        "runtime.launcher": runtime["launcher"],
        "the code (flows/, tasks/)": listing_sha256(dict(begun.code)),
        "the version of torch": torch.__version__.partition("+")[0],
        **{path.as_posix(): digest(path)["sha256"] if path.exists() else None for path in inputs},
    }


def _differences(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each process that does not have what the first has."""
    lines = []
    for rank, other in enumerate(facts):
        names = [name for name in facts[0] if name != "host" and other.get(name) != facts[0][name]]
        if names:
            lines.append(
                f"on {other['host']} (rank {rank}) other than on {facts[0]['host']} (rank 0): {', '.join(names)}; bring that "
                "node to the same commit, params.yaml and files (git checkout, dvc pull), or work in one folder of a shared disk"
            )
    return lines
