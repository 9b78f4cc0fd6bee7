"""Serves the flow from this machine on a schedule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.compress import compress
from tasks.errors import ParamsError

Overlap = Literal["skip", "enqueue"]

# What happens to a tick that comes while a run is under way.
STRATEGIES: dict[Overlap, ConcurrencyLimitStrategy] = {
    "skip": ConcurrencyLimitStrategy.CANCEL_NEW,
    "enqueue": ConcurrencyLimitStrategy.ENQUEUE,
}


def check_cron(cron: str) -> None:
    """Raise ParamsError unless `cron` is a schedule Prefect understands."""
    try:
        CronSchedule(cron=cron)
    except ValidationError as error:
        raise ParamsError(f"--cron {cron!r}: {error.errors()[0]['msg']}; write it like '0 2 * * *'") from None


def serve(workspace: Path, cron: str | None, api_url: str, overlap: Overlap = "skip") -> None:
    """Serve the flow from this process until it is stopped, for the Prefect server at `api_url`.

    One run at a time: two runs in one workspace would change each other's files.
    """
    os.chdir(workspace)  # served runs start in the current directory
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=STRATEGIES[overlap])
    # Prefect reads its environment once, on import, which was before our server had an address.
    with temporary_settings({PREFECT_API_URL: api_url}):
        compress.serve(
            name=f"compactlm {workspace.name}",
            cron=cron,
            global_limit=limit,
            parameters={"workspace": str(workspace)},
            entrypoint_type=EntrypointType.MODULE_PATH,
            print_starting_message=False,
        )
