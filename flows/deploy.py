"""Serves the flows from this machine: compress, audits and the check of the registry on a schedule, promote on demand."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import Flow
from prefect import serve as prefect_serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.audit import audit_champion
from flows.compress import compress
from flows.dead import UNDER_WAY, mark_dead, tag_of
from flows.promote import promote
from flows.scheduled import scheduled_run
from flows.server import serving
from flows.watch import check_registry
from tasks.errors import ParamsError, ResourceError
from tasks.running.identity import workspace_id
from tasks.running.scheduled import Schedule, only_tick
from tasks.running.start import only_run

UTC: Final = "UTC"
CHECK_CRON: Final = "*/30 * * * *"
Overlap = Literal["skip", "enqueue"]
NOT_ENDED: Final = (StateType.SCHEDULED, StateType.PAUSED, *UNDER_WAY)
console = logging.getLogger("compactlm")
# What happens to a tick that comes while a run is under way.
STRATEGIES: dict[Overlap, ConcurrencyLimitStrategy] = {
    "skip": ConcurrencyLimitStrategy.CANCEL_NEW,
    "enqueue": ConcurrencyLimitStrategy.ENQUEUE,
}


def check_cron(cron: str, option: str = "--cron", timezone: str = UTC) -> None:
    """Raise ParamsError unless `cron` is a schedule Prefect understands, and `timezone` the name of a time zone."""
    try:
        ZoneInfo(timezone)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ParamsError(f"--timezone {timezone!r}: there is no such time zone; write one like Europe/Berlin or {UTC}") from None
    try:
        CronSchedule(cron=cron)
    except ValidationError as error:
        raise ParamsError(f"{option} {cron!r}: {error.errors()[0]['msg']}; write it like '0 2 * * *'") from None


@dataclass(frozen=True)
class Times:
    """When what is run: five cron fields each, in the time of a zone. With a schedule its ref is run, else this workspace."""

    cron: str | None
    audit_cron: str | None = None
    timezone: str = UTC
    overlap: Overlap = "skip"
    schedule: Schedule | None = None


def serve(workspace: Path, times: Times, api_url: str) -> None:
    """Serve the flows from this process until it is stopped, for the Prefect server at `api_url`.

    `compress`, or the run of a ref, at its times, one at a time: two runs in one workspace would change each other's files.
    `promote` when somebody starts it or answers it. `check-registry` twice an hour. Audits of the champion; they and runs wait
    for each other.
    """
    os.chdir(workspace)  # served runs start in the current directory
    # What Prefect forgets when it is told to end by SIGTERM; it ends all the same.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    # Prefect reads its environment once, on import, which was before our server had an address.
    with temporary_settings({PREFECT_API_URL: api_url}), serving(workspace, api_url):
        end_dead_runs(workspace, times.schedule)
        if former := take_over(workspace):
            console.warning("%d deployments of a former version, 'compactlm %s', were replaced", former, workspace.name)
        prefect_serve(*deployments(workspace, times), print_starting_message=False)


def end_dead_runs(workspace: Path, schedule: Schedule | None = None) -> int:
    """Return how many runs were still called running though nothing runs here, and mark them as crashed.

    Those of runs in the workspace, and of a schedule's. They are left by a machine or a server that was stopped in their middle.
    Prefect keeps their place in the limit of one run at a time, and would cancel each later tick for it.
    """
    ended = 0
    with (
        suppress(ResourceError),
        only_run(workspace),
    ):  # else what is called running does run: here, or by another server of flows
        ended += mark_dead(workspace, [compress.name, audit_champion.name], UNDER_WAY)
    if schedule is not None:
        with suppress(ResourceError), only_tick(schedule):
            ended += mark_dead(workspace, [scheduled_run.name], UNDER_WAY, {"name": schedule.name})
    return ended


def take_over(workspace: Path) -> int:
    """Return how many deployments of former versions served this workspace, and take them away.

    They were named after the folder alone, as those of other workspaces; which one it is stands in their parameters. What they
    had not ended is cancelled.
    """
    former = DeploymentFilter(name=DeploymentFilterName(any_=[f"compactlm {workspace.name}"]))
    with get_client(sync_client=True) as client:
        ours = [entry for entry in client.read_deployments(deployment_filter=former) if _serves(entry.parameters, workspace)]
        for entry in ours:
            asked = {"deployment_id": {"any_": [str(entry.id)]}, "state": {"type": {"any_": list(NOT_ENDED)}}}
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(asked)):
                client.set_flow_run_state(
                    run.id, Cancelled(message=f"served as {name_of(workspace)!r} now; start it there"), force=True
                )
            client.delete_deployment(entry.id)
    return len(ours)


def _serves(parameters: Mapping[str, Any], workspace: Path) -> bool:
    return parameters.get("workspace") == str(workspace)


def deployments(workspace: Path, times: Times) -> list[RunnerDeployment]:
    """Return what is served, all under the workspace's name and tag."""
    once = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES["skip"])
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES[times.overlap])
    when: dict[str, Any] = {"schedule": _schedule(times.cron, times.timezone), "concurrency_limit": limit}
    if (ref := times.schedule) is None:
        runs = _deployed(compress, workspace, **when)
    else:
        asked = {"name": ref.name, "ref": ref.ref}
        runs = _deployed(scheduled_run, workspace, name=f"{name_of(workspace)} {ref.name}", asked=asked, **when)
    served = [runs, _deployed(promote, workspace), _deployed(check_registry, workspace, cron=CHECK_CRON)]
    if times.audit_cron is not None:
        audits = _schedule(times.audit_cron, times.timezone)
        served.append(_deployed(audit_champion, workspace, schedule=audits, concurrency_limit=once))
    return served


def _schedule(cron: str | None, timezone: str) -> CronSchedule | None:
    return CronSchedule(cron=cron, timezone=timezone) if cron else None


def _deployed(
    flow: Flow[..., Any], workspace: Path, name: str = "", asked: Mapping[str, str] | None = None, **how: Any
) -> RunnerDeployment:
    made = flow.to_deployment(
        name or name_of(workspace),
        parameters={"workspace": str(workspace), **(asked or {})},
        tags=[tag_of(workspace)],
        entrypoint_type=EntrypointType.MODULE_PATH,
        **how,
    )
    assert isinstance(made, RunnerDeployment)  # not a coroutine: there is no event loop here
    return made


def name_of(workspace: Path) -> str:
    """Return the name of what a workspace serves: for people, and no other workspace's on a server that is shared."""
    return f"compactlm {workspace.name} {workspace_id(workspace)}"
