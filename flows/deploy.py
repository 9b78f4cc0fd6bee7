"""Serves the flows from this machine on a schedule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from prefect import Flow
from prefect import serve as serve_deployments
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.audit import audit_champion
from flows.compress import compress
from tasks.errors import ParamsError

Overlap = Literal["skip", "enqueue"]

# What happens to a tick that comes while a run is under way.
STRATEGIES: dict[Overlap, ConcurrencyLimitStrategy] = {
    "skip": ConcurrencyLimitStrategy.CANCEL_NEW,
    "enqueue": ConcurrencyLimitStrategy.ENQUEUE,
}


def check_cron(cron: str, option: str = "--cron") -> None:
    """Raise ParamsError unless `cron` is a schedule Prefect understands."""
    try:
        CronSchedule(cron=cron)
    except ValidationError as error:
        raise ParamsError(f"{option} {cron!r}: {error.errors()[0]['msg']}; write it like '0 2 * * *'") from None


def serve(
    workspace: Path, cron: str | None, api_url: str, overlap: Overlap = "skip", audit_cron: str | None = None
) -> None:  # fmt: skip
    """Serve the flow from this process until it is stopped, for the Prefect server at `api_url`; audits too, if asked for.

    One run at a time: two runs in one workspace would change each other's files. Audits and runs wait for each other there.
    """
    os.chdir(workspace)  # served runs start in the current directory
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES[overlap])
    # Prefect reads its environment once, on import, which was before our server had an address.
    with temporary_settings({PREFECT_API_URL: api_url}):
        served = [_deployment(compress, f"compactlm {workspace.name}", cron, limit, workspace)]
        if audit_cron is not None:
            once = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES["skip"])
            served.append(_deployment(audit_champion, f"audit {workspace.name}", audit_cron, once, workspace))
        serve_deployments(*served, print_starting_message=False)


def _deployment(
    flow: Flow[..., Any], name: str, cron: str | None, limit: ConcurrencyLimitConfig, workspace: Path
) -> RunnerDeployment:  # fmt: skip
    made = flow.to_deployment(
        name=name, cron=cron, concurrency_limit=limit, parameters={"workspace": str(workspace)},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )  # fmt: skip
    assert isinstance(made, RunnerDeployment)  # not a coroutine: there is no event loop here
    return made
