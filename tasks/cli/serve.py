"""The commands that stay until Ctrl-C: runs on a schedule, and the pages of Prefect and MLflow."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Literal

import typer

from tasks.cli.console import Json, show
from tasks.cli.project import find_project, params_of


def serve(
    cron: Annotated[str, typer.Option(help="When to run, as five cron fields.")] = "0 2 * * *",
    overlap: Annotated[
        Literal["skip", "enqueue"], typer.Option(help="What to do with a tick while a run is under way.")
    ] = "skip",
    audit_cron: Annotated[
        str | None, typer.Option(help="When to audit the champion as well, such as '0 6 * * *'; a fault fails its flow run.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="The time zone of both schedules, such as Europe/Berlin.")] = "UTC",
    as_json: Json = False,
) -> None:
    """Run on a schedule from this machine until Ctrl-C; a tick with nothing to do adds nothing."""
    from flows.server import configure, prefect_server
    from tasks.running.start import check_run

    workspace = find_project()
    check_run(workspace)
    configure(workspace)
    from flows import deploy

    deploy.check_cron(cron, timezone=timezone)
    if audit_cron is not None:
        deploy.check_cron(audit_cron, "--audit-cron")
    with prefect_server() as url:
        facts = {"cron": cron, "audit_cron": audit_cron, "timezone": timezone, "overlap": overlap, "prefect": url}
        facts["workspace"] = str(workspace)
        show(facts, as_json, f"serving {workspace} at '{cron}' in {timezone}; runs are shown at {url}")
        sys.stdout.flush()
        deploy.serve(workspace, cron, f"{url}/api", overlap, audit_cron, timezone)


def ui(as_json: Json = False) -> None:
    """Open the pages of Prefect and MLflow over this workspace's records until Ctrl-C."""
    from flows.server import configure, mlflow_page, prefect_server
    from tasks.registry.tracking import Tracker

    workspace = find_project()
    params_of(workspace)
    configure(workspace)
    with prefect_server() as prefect, mlflow_page(Tracker(workspace).uri) as mlflow:
        facts = {"prefect": prefect, "mlflow": mlflow}
        show(facts, as_json, f"Prefect: {prefect}", f"MLflow:  {mlflow}", "Ctrl-C ends both")
        sys.stdout.flush()
        while True:
            time.sleep(3600)
