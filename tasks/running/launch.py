"""Starts a stage that trains in several processes of this machine, and ends all of them when one fails.

Each process goes through the whole stage; `tasks.models.processes` brings them together, and the first alone writes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from tasks import children
from tasks.errors import EXIT_STAGE_ERROR, EXIT_USER_ERROR, StageError, UserError
from tasks.params.base import Launcher

TRAINING: Final = ("teacher", "distill", "random_init")


def in_several(stage: str, launcher: Launcher) -> bool:
    """Return whether a stage is to be started in several processes from here: it trains, and is not one of them already."""
    return not launcher.external and launcher.several and stage in TRAINING and int(os.environ.get("WORLD_SIZE", 1)) == 1


def launch(stage: str, launcher: Launcher, work: Callable[[], object]) -> None:
    """Run `work` in the processes of a launcher and return when all have ended well.

    Otherwise all are ended and the fault is raised: the UserError that one of them raised, else StageError.
    """
    count = int(launcher.processes)
    # A fork has what this process has imported; where Python advises against forks, each process imports anew.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    refusals = context.SimpleQueue()
    group = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": children.LOOPBACK,
        "MASTER_PORT": children.free_port(),
        children.BACKEND: launcher.backend,
        children.STRATEGY: launcher.strategy,
        "GLOO_SOCKET_IFNAME": children.loopback_name(),
    }
    ranks = []
    try:
        for rank in range(count):
            env = {name: str(value) for name, value in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()}
            process = context.Process(target=_work_as_rank, args=(env, work, refusals, os.getpid()))
            process.start()
            ranks.append(process)
        failed = _wait(ranks)
    finally:
        for process in ranks:
            process.kill()
            process.join()
    if not refusals.empty():
        raise refusals.get()
    if failed is not None:
        raise StageError(stage, _sentence(*failed, count))


def _wait(ranks: Sequence[BaseProcess]) -> tuple[int, int] | None:
    """Return rank and exit code of the process that failed first; None when all have ended well."""
    left: dict[Any, int] = {process.sentinel: rank for rank, process in enumerate(ranks)}
    while left:
        ended = [left.pop(sentinel) for sentinel in connection.wait(list(left))]
        for rank in ended:
            ranks[rank].join()
        failed = [(rank, int(ranks[rank].exitcode or 0)) for rank in ended if ranks[rank].exitcode]
        if failed:
            # A signal, which is below 0, is no consequence of another's end.
            return min(failed, key=lambda rank_and_code: rank_and_code[1])
    return None


def _sentence(rank: int, code: int, count: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}, see above"
    hint = ", which is how the system ends who takes more memory than there is" if code == -signal.SIGKILL else ""
    return (
        f"process {rank + 1} of {count} (rank {rank}) {how}{hint}; the others were ended with it. "
        "Run again: training goes on from the last saved state"
    )


def _work_as_rank(env: dict[str, str], work: Callable[[], object], refusals: Any, launcher: int) -> None:
    """Be one process of the group: do the work, and leave a refusal to the launcher, which tells it once for all."""
    children.die_with_parent()
    if os.getppid() != launcher:  # it ended before we asked
        os._exit(1)
    os.environ.update(env)
    code = EXIT_STAGE_ERROR
    try:
        work()
        code = 0
    except UserError as error:
        refusals.put(error)
        code = EXIT_USER_ERROR
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        if code == EXIT_STAGE_ERROR:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without taking anything down: see `Processes.end_others`
