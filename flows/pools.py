"""Stages on other machines, by Prefect's work pools: handing one over, and the flow `stage` that a worker runs.

`compactlm worker POOL` starts a worker in a clone of the project; `runtime.pools` in params.yaml says which stages go where.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import LogSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Completed, Failed
from prefect.types.entrypoint import EntrypointType

from flows.dead import tag_of
from flows.server import API
from tasks.children import own_path, running
from tasks.errors import ResourceError, StageError, UserError
from tasks.running.dvc import BusyError, Outcome, Stage, StageRunner, restore
from tasks.running.pooled import HOME, Offer, hand_over, lock_text, queue_of, run_handed_over

FLOW: Final = "stage"
REFUSED: Final = "Refused"  # the name of a failed state whose message is for people to mend
POLL_SECONDS: Final = 1.0
LATE_SECONDS: Final = 30.0  # without a worker, until that is told
AWAY_SECONDS: Final = 600.0  # that the server may be away while a worker works
QUERY_SECONDS: Final = "1.5"  # between two looks of a worker; Prefect's default of 10 would be most of the way of a stage
END_SECONDS: Final = 30.0
console = logging.getLogger("compactlm")


@flow(name=FLOW, persist_result=False, validate_parameters=False)
def stage(name: str, commit: str, lock: str) -> State[Any]:
    """Return Completed with how the stage came about, once its files are at the DVC remote; Failed with the reason."""
    home = os.environ.get(HOME)
    if not home:
        return Failed(name=REFUSED, message=f"{HOME} is not set; start the worker by `compactlm worker POOL`")
    logger = get_run_logger()
    try:
        outcome = run_handed_over(Path(home), name, commit, lock, logger.info)
    except BusyError as error:
        return Failed(message=str(error))
    except UserError as error:
        return Failed(name=REFUSED, message=str(error))
    except StageError as error:
        return Failed(message=str(error))
    return Completed(message=outcome)


def deployment_name(workspace: Path, pool: str) -> str:
    """Return the name of the deployment that runs stages of this project on a pool."""
    return f"{queue_of(workspace)}-{pool}"


class Pools:
    """Hands stages of one run over to workers."""

    def __init__(self, workspace: Path) -> None:
        self.workspace, self._offer = workspace, Offer(workspace)

    def run(self, one: Stage, pool: str, runner: StageRunner, on_line: Callable[[str], None]) -> Outcome:
        """Bring a stage up to date by a worker of a pool, and return how that came about there.

        Equal work that was done anywhere is taken from the DVC remote. Raises as `StageRunner.run`.
        """
        if not restore(self.workspace, one.name):
            commit = self._offer.commit()
            hand_over(self.workspace, one)
            on_line(f"goes to the pool {pool}")
            self._wait(one.name, pool, commit, on_line)
            if not restore(self.workspace, one.name):
                raise StageError(one.name, f"a worker of {pool} ran it, and DVC finds no run that fits what this workspace has")
            runner.run(one.name, _hear_nothing)  # which finds it restored, and writes dvc.lock
            return "executed"
        runner.run(one.name, on_line)
        return "restored"

    def require_commit(self) -> None:
        """Raise UserError where workers could not see what this workspace has, before a stage has worked for it."""
        self._offer.commit()

    def close(self) -> None:
        """Take away what was left for workers."""
        self._offer.close()

    def _wait(self, name: str, pool: str, commit: str, on_line: Callable[[str], None]) -> None:
        lock = lock_text(self.workspace)
        with get_client(sync_client=True) as client:
            run = self._start(client, name, pool, {"name": name, "commit": commit, "lock": lock})
            with _cancelled_with_us(client, run.id):
                state = _follow(client, run.id, name, pool, on_line)
        words = f"on a worker of {pool}: {state.message or state.name}"
        if state.is_completed():
            return
        if state.name == REFUSED:
            raise UserError(f"{name}: {words}")
        if state.is_crashed():
            raise BusyError(name, words)
        raise StageError(name, words)

    def _start(self, client: SyncPrefectClient, name: str, pool: str, parameters: dict[str, str]) -> FlowRun:
        """Return the run of a stage; that of another flow which waits for equal work, if there is one."""
        try:
            found = client.read_deployment_by_name(f"{FLOW}/{deployment_name(self.workspace, pool)}")
        except ObjectNotFound:
            raise ResourceError(
                f"runtime.pools: no worker of this project was ever at the pool {pool}; `compactlm worker {pool}` starts one, "
                "in a clone on the machine that is to do the work"
            ) from None
        digest = hashlib.sha256("\n".join(parameters.values()).encode()).hexdigest()
        for attempt in range(1000):
            run = client.create_flow_run_from_deployment(
                found.id,
                parameters=parameters,
                name=f"{name} {parameters['commit'][:8]}",
                tags=[tag_of(self.workspace)],
                idempotency_key=f"{digest}-{attempt}",
            )
            if run.state is None or not run.state.is_final():
                return run
        raise ResourceError(f"{name}: this very work has ended 1000 times on {pool}; see its runs in Prefect")


def _follow(client: SyncPrefectClient, run_id: UUID, name: str, pool: str, on_line: Callable[[str], None]) -> State[Any]:
    """Return the last state of a run; what it logs goes to `on_line`. BusyError when the server stays away."""
    told, began, answered, heard = False, time.monotonic(), time.monotonic(), 0
    while True:
        try:
            run = client.read_flow_run(run_id)
            lines = client.read_logs(
                LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])), offset=heard, sort=LogSort.TIMESTAMP_ASC
            )
        except (httpx.HTTPError, PrefectException) as error:
            if time.monotonic() - answered > AWAY_SECONDS:
                raise BusyError(name, f"Prefect does not answer: {error}") from None
            time.sleep(POLL_SECONDS)
            continue
        answered, heard = time.monotonic(), heard + len(lines)
        for line in lines:
            if line.name == "prefect.flow_runs" and not line.message.startswith(("Beginning", "Finished", "View")):
                on_line(line.message)
        if run.state is not None and run.state.is_final():
            return run.state
        if not told and run.start_time is None and time.monotonic() - began > LATE_SECONDS:
            told = True
            console.warning("%s: no worker takes it from the pool %s; `compactlm worker %s` starts one", name, pool, pool)
        time.sleep(POLL_SECONDS)


@contextmanager
def _cancelled_with_us(client: SyncPrefectClient, run_id: UUID) -> Iterator[None]:
    """Have a worker stop a stage when the run that asked for it is stopped."""
    try:
        yield
    except BaseException:
        with suppress(httpx.HTTPError, PrefectException):
            state = client.read_flow_run(run_id).state
            if state is not None and not state.is_final():
                client.set_flow_run_state(run_id, Cancelling(), force=True)
        raise


def _hear_nothing(_line: str) -> None:
    """Stand for lines that have been told."""


def prepare_pool(workspace: Path, pool: str, command: str | None = None) -> None:
    """Make a pool of processes, unless there is a pool of the name, and the deployment of this project's stages on it.

    `command` is what a worker starts for a stage in place of Prefect's engine, such as what makes a job of Slurm of it.
    """
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    made = stage.to_deployment(
        deployment_name(workspace, pool),
        work_pool_name=pool,
        work_queue_name=queue_of(workspace),
        entrypoint_type=EntrypointType.MODULE_PATH,
        job_variables={} if command is None else {"command": command},
        tags=["compactlm"],
    )
    assert isinstance(made, RunnerDeployment)  # not a coroutine: there is no event loop here
    made.apply()


def work(workspace: Path, pool: str, limit: int, name: str) -> int:
    """Run a worker in this workspace until it is stopped, and return its exit code."""
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")},  # a stage needs no MLflow
        "PATH": own_path(),
        API: str(PREFECT_API_URL.value()),
        HOME: str(workspace),
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
    }
    env.setdefault("PREFECT_WORKER_QUERY_SECONDS", QUERY_SECONDS)
    command = ["prefect", "worker", "start", "--pool", pool, "--work-queue", queue_of(workspace), "--limit", str(limit)]
    command += ["--name", name, "--type", "process", "--install-policy", "never"]
    with running(command, END_SECONDS, cwd=workspace, env=env, stdout=subprocess.DEVNULL) as child:
        return child.wait()
