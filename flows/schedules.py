"""The schedules of a workspace on its Prefect server: what there is, and pausing, resuming and starting one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypedDict
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags, FlowFilter, FlowFilterId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.compress import compress
from flows.dead import tag_of
from flows.deploy import name_of
from flows.scheduled import scheduled_run
from tasks.errors import ResourceError, UserError
from tasks.running.scheduled import Schedule

HERE: Final = "here"  # the name of the schedule that runs in the workspace itself
WAITING: Final = (StateType.SCHEDULED.value, StateType.PENDING.value)
ENDED: Final = (StateType.COMPLETED.value, StateType.FAILED.value, StateType.CRASHED.value, StateType.CANCELLED.value)
Change = Literal["pause", "resume"]


class LastRun(TypedDict):
    """How a run of a schedule ended."""

    state: str
    message: str
    ended_at: str
    flow_run: str


class Row(TypedDict):
    """A schedule: its ref (None: the workspace itself), its times, and its runs before and next."""

    name: str
    ref: str | None
    crons: list[str]
    timezone: str | None
    paused: bool
    served: bool
    next_at: str | None
    running: int
    last: LastRun | None
    branch: str | None


def read_schedules(workspace: Path, api_url: str) -> list[Row]:
    """Return the schedules of a workspace, by name; ResourceError where the server does not answer."""
    with _client(api_url) as client:
        return [_row(client, workspace, entry) for entry in _served(client, workspace)]


def change(workspace: Path, api_url: str, name: str, what: Change) -> None:
    """Pause or resume a schedule: its ticks, not a run that is under way; UserError where there is none of the name."""
    with _client(api_url) as client:
        entry = _find(client, workspace, name)
        for schedule in client.read_deployment_schedules(entry.id):
            client.update_deployment_schedule(entry.id, schedule.id, active=what == "resume")


def trigger(workspace: Path, api_url: str, name: str, accept_data: bool = False) -> str:
    """Return the id of a new run of a schedule, which starts now; UserError where there is none of the name."""
    with _client(api_url) as client:
        entry = _find(client, workspace, name)
        asked = {**(entry.parameters or {}), "accept_data": True} if accept_data else None
        return str(client.create_flow_run_from_deployment(entry.id, parameters=asked, tags=[tag_of(workspace)]).id)


def ended(api_url: str, flow_run: str) -> LastRun | None:
    """Return how a run ended, None while it has not."""
    with _client(api_url) as client:
        run = client.read_flow_run(UUID(flow_run))
        return _last([run]) if run.state is not None and run.state.is_final() else None


@contextmanager
def _client(api_url: str) -> Iterator[SyncPrefectClient]:
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, PrefectException) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResourceError(f"Prefect at {api_url} does not answer as it should: {line}") from None


def _served(client: SyncPrefectClient, workspace: Path) -> list[DeploymentResponse]:
    """Return the deployments of this workspace that run the pipeline."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag_of(workspace)]))
    found = client.read_deployments(deployment_filter=tagged)
    flows = {entry.flow_id for entry in found}
    if not flows:
        return []
    named = client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=list(flows))))
    ours = {flow.id for flow in named if flow.name in (compress.name, scheduled_run.name)}
    return sorted((entry for entry in found if entry.flow_id in ours), key=lambda entry: entry.name)


def _find(client: SyncPrefectClient, workspace: Path, name: str) -> DeploymentResponse:
    entries = {_short(workspace, entry): entry for entry in _served(client, workspace)}
    if name not in entries:
        raise UserError(f"no schedule {name!r} here; there are: {', '.join(entries) or 'none, `compactlm schedule` makes one'}")
    return entries[name]


def _short(workspace: Path, entry: DeploymentResponse) -> str:
    return entry.name.removeprefix(name_of(workspace)).strip() or HERE


def _row(client: SyncPrefectClient, workspace: Path, entry: DeploymentResponse) -> Row:
    name, ref = _short(workspace, entry), (entry.parameters or {}).get("ref")
    crons = [(each.schedule, each.active) for each in entry.schedules if isinstance(each.schedule, CronSchedule)]
    of_it = {"deployment_id": {"any_": [str(entry.id)]}}

    def runs(types: Sequence[str], order: FlowRunSort) -> list[FlowRun]:
        asked = FlowRunFilter.model_validate({**of_it, "state": {"type": {"any_": [*types]}}})
        return list(client.read_flow_runs(flow_run_filter=asked, sort=order, limit=20))

    waiting = runs(WAITING, FlowRunSort.EXPECTED_START_TIME_ASC)
    active = any(is_active for _, is_active in crons)
    next_at = waiting[0].expected_start_time if waiting and active else None
    return {
        "name": name,
        "ref": ref,
        "crons": [times.cron for times, _ in crons],
        "timezone": crons[0][0].timezone if crons else None,
        "paused": bool(crons) and not active,
        "served": str(getattr(entry.status, "value", entry.status)) == "READY",
        "next_at": None if next_at is None else _time(next_at),
        "running": len(runs((StateType.RUNNING.value, StateType.CANCELLING.value), FlowRunSort.START_TIME_ASC)),
        "last": _last(runs(ENDED, FlowRunSort.END_TIME_DESC)),
        "branch": Schedule(workspace, name, ref).branch if ref else None,
    }


def _last(runs: Sequence[FlowRun]) -> LastRun | None:
    for run in runs:
        if run.end_time is not None and run.state is not None:
            state, message = str(run.state.name), run.state.message or ""
            return {"state": state, "message": message, "ended_at": _time(run.end_time), "flow_run": str(run.id)}
    return None


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
