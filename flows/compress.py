"""The flow `compress`: DVC's graph as a Prefect flow, one task run a stage, and the record of it in MLflow.

DVC decides what must run; Prefect decides when, and shows it. Run it with `compactlm run`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.summary import publish_artifacts
from tasks.errors import AwayError, RightsError, StageError
from tasks.params.base import Params
from tasks.progress import PREFIX
from tasks.promotion.first_champion import rebuild_lost, settle_champion
from tasks.registry.live import Recorder, open_recorder
from tasks.running.dvc import BusyError, StageRunner, pending
from tasks.running.last_run import NOT_RECORDED, describe, sentence, write_last_run
from tasks.running.start import only_run, prepare_run
from tasks.warm import warm_server

PROGRESS_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 10.0
console = logging.getLogger("compactlm")  # what a person at the terminal sees; the command line listens to it


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, BusyError)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=10,
    retry_condition_fn=_worth_retrying,
)
def run_stage(name: str, needed: bool, runner: StageRunner, recorder: Recorder) -> tuple[str, float]:
    """Return how the stage was brought up to date (executed, restored or skipped) and the seconds that took."""
    if not needed:  # neither it nor anything before it has changed: asking DVC again would cost a second
        return "skipped", 0.0
    began = time.monotonic()
    logger = get_run_logger()
    trains = recorder.trains(name)
    show_progress = _progress_artifact(name) if trains else None

    def on_line(line: str) -> None:
        logger.info(line)
        console.info(line, extra={"stage": name})
        if show_progress and line.startswith(PREFIX):
            show_progress(line)

    with recorder.follow(name) if trains else nullcontext():
        outcome = runner.run(name, on_line)
    console.info("%s %s in %.1f s", name, outcome, time.monotonic() - began)
    return outcome, time.monotonic() - began


def _progress_artifact(name: str) -> Callable[[str], None]:
    key = re.sub(r"[^a-z0-9]", "-", name)
    artifact = create_progress_artifact(progress=0.0, key=key, description=f"stage {name}")
    assert isinstance(artifact, UUID)  # not a coroutine: this is a thread without an event loop
    last = time.monotonic()

    def show(line: str) -> None:
        nonlocal last
        percent = re.search(r"(\d+)%", line)
        if percent and time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            update_progress_artifact(artifact, progress=float(percent[1]), description=line.removeprefix(PREFIX).strip())

    return show


@flow(name="compress", persist_result=False, validate_parameters=False)
def compress(
    workspace: str = ".", max_workers: int = 1, started: float | None = None, checked: bool = False
) -> State[Any] | dict[str, Any]:
    """Return the record of the run, or the state NoChange when everything was up to date.

    The state is NotRecorded, with the record, when all is done and MLflow did not take it.
    `started`: when the command began, in seconds since the epoch; `checked`: params and sources have been looked at.
    """
    began = started or time.time()
    folder = Path(workspace).absolute()
    rebuild_lost(folder)
    with only_run(folder):
        params = prepare_run(folder, checked=checked)
        recorder, waiting = open_recorder(folder, params, settle_champion)
        if not waiting:
            recorder.finish_unchanged()
            return Completed(name="NoChange", message="every stage is up to date")
        record = _run_all(folder, params, waiting, recorder, began, max_workers)
    if record["state"] == NOT_RECORDED:
        return Completed(name="NotRecorded", message=record["undelivered"], data=record)
    return record


def compress_at(api_url: str, workspace: Path, max_workers: int, started: float) -> State[Any] | dict[str, Any]:
    """Return what `compress` returns, run on the Prefect server at `api_url`, for input that has been checked."""
    # Prefect reads its environment once, on import, which was before the server had an address.
    with temporary_settings({PREFECT_API_URL: api_url}):
        try:
            return compress(str(workspace), max_workers, started, checked=True)
        finally:
            # What is still on its way would be tried for a minute after the server has gone.
            APILogHandler().flush()
            EventsWorker.drain_all(timeout=FLUSH_SECONDS)


def _run_all(
    folder: Path, params: Params, waiting: list[str], recorder: Recorder, began: float, max_workers: int
) -> dict[str, Any]:
    outcomes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    state, undelivered = "failed", ""
    try:
        with warm_server(folder) as env, _pool(max_workers) as pool, StageRunner(folder, env) as runner:
            _run_graph(pool, waiting, runner, recorder, outcomes, seconds)
        left = pending(folder, recorder.stages)
        if left:
            raise StageError(left[0], "is not up to date after the run; did something change its files meanwhile?")
        runs: dict[str, str] = {}
        try:
            runs = recorder.finish(outcomes)
        except (AwayError, RightsError) as error:
            undelivered = str(error)
        publish_artifacts(folder, params, runs, recorder.uri)
        state = NOT_RECORDED if undelivered else "completed"
    finally:
        if state == "failed":
            recorder.fail()
        record = write_last_run(folder, state, describe(folder, outcomes, seconds), time.time() - began, undelivered)
        get_run_logger().info(sentence(record))  # the command says it at its own end, which is a little later
    return record


def _run_graph(
    pool: ThreadPoolTaskRunner[Any],
    waiting: list[str],
    runner: StageRunner,
    recorder: Recorder,
    outcomes: dict[str, str],
    seconds: dict[str, float],
) -> None:
    """Run every stage after those it waits for; raise the first fault when all that could run has ended."""
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in recorder.stages:
        upstream = [futures[name] for name in stage.upstream]
        parameters = {"name": stage.name, "needed": stage.name in waiting, "runner": runner, "recorder": recorder}
        futures[stage.name] = pool.submit(run_stage, parameters, wait_for=upstream)
    fault: BaseException | None = None
    for name, future in futures.items():
        future.wait()
        if future.state.is_completed():
            outcomes[name], seconds[name] = future.result()
        elif future.state.is_failed() or future.state.is_crashed():
            outcomes[name] = "failed"
            fault = fault or future.result(raise_on_failure=False)
        else:
            outcomes[name] = "not run"
    if fault is not None:
        raise fault


def _pool(max_workers: int) -> ThreadPoolTaskRunner[Any]:
    return ThreadPoolTaskRunner(max_workers=max_workers)
