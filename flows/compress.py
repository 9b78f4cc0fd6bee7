"""The flow `compress`: DVC's graph as a Prefect flow, one task run a stage, and the record of it in MLflow.

DVC decides what must run; Prefect decides when, and shows it. Run it with `compactlm run`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dead import forget_dead, tag_of
from flows.outage import ERRORS, RETRIES, Ending, ProgressArtifact, Watch, kept_ending
from flows.pools import Pools
from flows.summary import publish_artifacts
from tasks.errors import AwayError, RightsError, StageError, UserError
from tasks.lineage.loaded import listed
from tasks.params.base import Params
from tasks.promotion.first_champion import rebuild_lost, settle_champion
from tasks.registry.live import Recorder, open_recorder
from tasks.running.accepted import BEFORE, refuse_drift
from tasks.running.dvc import BusyError, Stage, StageRunner, pending
from tasks.running.last_run import NOT_RECORDED, describe, sentence, write_last_run
from tasks.running.start import only_run, prepare_run
from tasks.warm import warm_server

FLUSH_SECONDS: Final = 10.0
console = logging.getLogger("compactlm")  # what a person at the terminal sees; the command line listens to it


@dataclass(frozen=True)
class Hands:
    """What a stage meets on its way outside of this machine: whether Prefect answers, and workers."""

    watch: Watch
    pools: Pools
    accept_data: bool  # however far it is from the last result's


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, BusyError)


@task(
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=10,
    retry_condition_fn=_worth_retrying,
)
def run_stage(stage: Stage, needed: bool, runner: StageRunner, recorder: Recorder, hands: Hands) -> tuple[str, float]:
    """Return how the stage was brought up to date (executed, restored or skipped) and the seconds that took."""
    name = stage.name
    if not needed:  # neither it nor anything before it has changed: asking DVC again would cost a second
        return "skipped", 0.0
    began = time.monotonic()
    logger = get_run_logger()
    trains = recorder.trains(name)

    def on_line(line: str) -> None:
        logger.info(line)
        console.info(line, extra={"stage": name})
        show(line)

    shown = ProgressArtifact(name, hands.watch) if trains else nullcontext(_show_nothing)
    pool = recorder.params.runtime.pool_of(name)
    if name == BEFORE and not hands.accept_data:
        refuse_drift(recorder.workspace, recorder.params)
    follows = trains and pool is None  # what is trained elsewhere has its curve in its outputs, and is recorded from there
    with shown as show, recorder.follow(name) if follows else nullcontext():
        outcome = runner.run(name, on_line) if pool is None else hands.pools.run(stage, pool, runner, on_line)
    console.info("%s %s in %.1f s", name, outcome, time.monotonic() - began)
    return outcome, time.monotonic() - began


def _show_nothing(_line: str) -> None:
    """Stand for the progress of a stage that tells none."""


@flow(name="compress", persist_result=False, validate_parameters=False)
def compress(
    workspace: str = ".", max_workers: int = 1, started: float | None = None, checked: bool = False, accept_data: bool = False
) -> State[Any] | dict[str, Any]:
    """Return the record of the run, or the state NoChange when everything was up to date.

    The state is NotRecorded, with the record, when all is done and MLflow did not take it.
    `started`: when the command began, in seconds since the epoch; `checked`: who calls holds the workspace, and has looked at
    params and sources; `accept_data`: whatever `validate_data.drift` says.
    """
    began = started or time.time()
    folder = Path(workspace).absolute()
    with kept_ending() as ending, ending.kept(), nullcontext() if checked else only_run(folder):
        forget_dead(folder, compress.name)
        rebuild_lost(folder)
        params = prepare_run(folder, checked=checked)
        recorder, waiting = open_recorder(folder, params, settle_champion)
        if not waiting:
            recorder.finish_unchanged()
            ending.result = Completed(name="NoChange", message="every stage is up to date")
        else:
            record = ending.result = _run_all(params, waiting, recorder, ending, began, max_workers, accept_data)
            if record["state"] == NOT_RECORDED:
                ending.result = Completed(name="NotRecorded", message=record["undelivered"], data=record)
        result: State[Any] | dict[str, Any] = ending.result
    return result


def compress_at(
    watch: Watch, workspace: Path, max_workers: int, started: float, accept_data: bool = False
) -> State[Any] | dict[str, Any]:
    """Return what `compress` returns, run on the Prefect server that is watched, for checked input in a workspace that is held.

    A server that is away when the work has ended changes nothing of that.
    """
    # Prefect reads its environment once, on import, which was before the server had an address.
    settings: dict[Any, Any] = {PREFECT_API_URL: watch.api_url}
    if PREFECT_CLIENT_MAX_RETRIES.name not in os.environ:
        settings[PREFECT_CLIENT_MAX_RETRIES] = RETRIES
    with temporary_settings(settings), kept_ending(watch) as ending:
        try:
            with tags(tag_of(workspace)):
                return compress(str(workspace), max_workers, started, checked=True, accept_data=accept_data)
        except ERRORS:
            watch.look()
            if ending.fault is not None:
                raise ending.fault from None
            if ending.result is None:  # it never began
                raise
            result: State[Any] | dict[str, Any] = ending.result
            return result
        finally:
            if not watch.away:
                # What is still on its way would be tried for a minute after the server has gone.
                APILogHandler().flush()
                EventsWorker.drain_all(timeout=FLUSH_SECONDS)


def _run_all(
    params: Params, waiting: list[str], recorder: Recorder, ending: Ending, began: float, max_workers: int, accept_data: bool
) -> dict[str, Any]:
    folder = recorder.workspace
    outcomes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    state, undelivered = "failed", ""
    try:
        with (
            warm_server(folder) as env,
            closing(Pools(folder)) as pools,
            _pool(max_workers) as pool,
            StageRunner(folder, env) as runner,
        ):
            if any(params.runtime.pool_of(name) for name in waiting):
                pools.require_commit()
            common = {"runner": runner, "recorder": recorder, "hands": Hands(ending.watch, pools, accept_data)}
            _run_graph(pool, waiting, recorder.stages, common, outcomes, seconds)
        left = pending(folder, recorder.stages)
        if changed := recorder.changed():
            raise UserError(_changed_sentence(changed, len(left)))
        if left:
            raise StageError(left[0], "is not up to date after the run; did something change its files meanwhile?")
        runs: dict[str, str] = {}
        try:
            runs = recorder.finish(outcomes)
        except (AwayError, RightsError) as error:
            undelivered = str(error)
        ending.show(lambda: publish_artifacts(folder, params, runs, recorder.uri))
        state = NOT_RECORDED if undelivered else "completed"
    finally:
        if state == "failed":
            recorder.fail()
        record = write_last_run(folder, state, describe(folder, outcomes, seconds), time.time() - began, undelivered)
        get_run_logger().info(sentence(record))  # the command says it at its own end, which is a little later
    return record


def _changed_sentence(changed: list[str], left: int) -> str:
    state = f"{left} stages are not up to date" if left else "every stage is up to date"
    return (
        f"changed while this run went on: {listed(changed)}. Each receipt names what its stage ran with; {state}, and no "
        "round was recorded in MLflow. Run again: what is up to date is kept"
    )


def _run_graph(
    pool: ThreadPoolTaskRunner[Any],
    waiting: list[str],
    stages: Sequence[Stage],
    common: Mapping[str, Any],
    outcomes: dict[str, str],
    seconds: dict[str, float],
) -> None:
    """Run every stage after those it waits for; raise the first fault when all that could run has ended.

    `common`: what each task run is told besides its stage.
    """
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in stages:
        upstream = [futures[name] for name in stage.upstream]
        parameters = {"stage": stage, "needed": stage.name in waiting, **common}
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
