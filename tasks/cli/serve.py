"""The commands that stay until Ctrl-C: the pages of Prefect and MLflow, and the former name of `schedule`."""

from __future__ import annotations

import sys
import time

from tasks.cli.console import Json, err, show
from tasks.cli.project import find_project, params_of
from tasks.cli.schedule import NIGHTLY, Audits, Cron, Overlap, Zone, schedule


def serve(
    cron: Cron = NIGHTLY, overlap: Overlap = "skip", audit_cron: Audits = None, timezone: Zone = "UTC", as_json: Json = False
) -> None:
    """Run on a schedule: the former name of `compactlm schedule`, which also runs a branch of a remote."""
    find_project()
    err.print("`compactlm serve` is `compactlm schedule` now; this name will go")
    schedule(cron=cron, overlap=overlap, audit_cron=audit_cron, timezone=timezone, as_json=as_json)


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
