"""Serves the flows from this machine: compress, audits and the check of the registry on a schedule, promote on demand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

from prefect import Flow
from prefect import serve as prefect_serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.audit import audit_champion
from flows.compress import compress
from flows.promote import promote
from flows.watch import check_registry
from tasks.errors import ParamsError

CHECK_CRON: Final = "*/30 * * * *"
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
    """Serve the flows from this process until it is stopped, for the Prefect server at `api_url`.

    `compress` at `cron`, one run at a time: two runs in one workspace would change each other's files. `promote` when somebody
    starts it or answers it. `check-registry` twice an hour. Audits of the champion at `audit_cron`; they and runs wait for
    each other.
    """
    os.chdir(workspace)  # served runs start in the current directory
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES[overlap])
    # Prefect reads its environment once, on import, which was before our server had an address.
    with temporary_settings({PREFECT_API_URL: api_url}):
        prefect_serve(*deployments(workspace, cron, limit, audit_cron), print_starting_message=False)


def deployments(
    workspace: Path, cron: str | None, limit: ConcurrencyLimitConfig, audit_cron: str | None = None
) -> list[RunnerDeployment]:  # fmt: skip
    """Return what is served, all under the workspace's name."""
    served = [
        _deployed(compress, workspace, cron=cron, concurrency_limit=limit),
        _deployed(promote, workspace),
        _deployed(check_registry, workspace, cron=CHECK_CRON),
    ]
    if audit_cron is not None:
        once = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES["skip"])
        served.append(_deployed(audit_champion, workspace, cron=audit_cron, concurrency_limit=once))
    return served


def _deployed(flow: Flow[..., Any], workspace: Path, **how: Any) -> RunnerDeployment:
    made = flow.to_deployment(
        f"compactlm {workspace.name}",
        parameters={"workspace": str(workspace)},
        entrypoint_type=EntrypointType.MODULE_PATH,
        **how,
    )
    assert isinstance(made, RunnerDeployment)  # not a coroutine: there is no event loop here
    return made
