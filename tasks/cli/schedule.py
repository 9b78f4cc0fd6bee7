"""Runs on a schedule: the commands that serve one, and that show, pause, resume and start those that are served."""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from tasks.cli.console import Json, err, out, print_json, show
from tasks.cli.project import find_project
from tasks.errors import ParamsError, UserError

Cron = Annotated[str, typer.Option(help="When to run, as five cron fields.")]
Overlap = Annotated[Literal["skip", "enqueue"], typer.Option(help="What to do with a tick while a run is under way.")]
Audits = Annotated[
    str | None, typer.Option(help="When to audit the champion as well, such as '0 6 * * *'; a fault fails its flow run.")
]
Zone = Annotated[str, typer.Option(help="The time zone of both schedules, such as Europe/Berlin.")]
NIGHTLY = "0 2 * * *"


def schedule(
    cron: Cron = NIGHTLY,
    ref: Annotated[
        str | None, typer.Option(help="What to run: a branch of a remote such as origin/main. Without it this folder as it is.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The schedule's name, of its branch compactlm/runs/NAME; by default the ref.")
    ] = None,
    overlap: Overlap = "skip",
    audit_cron: Audits = None,
    timezone: Zone = "UTC",
    as_json: Json = False,
) -> None:
    """Run on a schedule from this machine until Ctrl-C; a tick with nothing to do adds nothing.

    With --ref each tick fetches the branch, runs it in a worktree of its own below .compactlm/scheduled, commits the result on
    compactlm/runs/NAME and pushes both the branch and the DVC cache. This folder and its branch are not touched.
    """
    from flows.server import configure, prefect_server
    from tasks.running.scheduled import checked_schedule
    from tasks.running.start import check_run

    workspace = find_project()
    if ref is None and name is not None:
        raise ParamsError(f"--name {name}: it names a schedule of a ref; write --ref origin/main beside it")
    of_ref = None if ref is None else checked_schedule(workspace, ref, name)
    if of_ref is None:
        check_run(workspace)
    configure(workspace)
    from flows import deploy

    deploy.check_cron(cron, timezone=timezone)
    if audit_cron is not None:
        deploy.check_cron(audit_cron, "--audit-cron")
    with prefect_server() as url:
        facts: dict[str, Any] = {"cron": cron, "audit_cron": audit_cron, "timezone": timezone, "overlap": overlap, "prefect": url}
        facts |= {"workspace": str(workspace), "ref": ref, "name": of_ref and of_ref.name, "branch": of_ref and of_ref.branch}
        what = f"{ref} as {of_ref.name}" if of_ref else str(workspace)
        show(facts, as_json, f"serving {what} at '{cron}' in {timezone}; runs are shown at {url}")
        sys.stdout.flush()
        deploy.serve(workspace, deploy.Times(cron, audit_cron, timezone, overlap, of_ref), f"{url}/api")


def schedules(
    pause: Annotated[str | None, typer.Option(metavar="NAME", help="Pause a schedule: no tick until it is resumed.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Let the ticks of a paused schedule come again.")] = None,
    trigger: Annotated[str | None, typer.Option(metavar="NAME", help="Start a run of a schedule now.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run that --trigger started has ended.")] = False,
    accept_data: Annotated[
        bool, typer.Option("--accept-data", help="For the run that --trigger starts: whatever validate_data.drift says.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the schedules of this workspace, with their last and next runs; pause, resume or start one.

    Exit code 1 when the run that --trigger --wait started has failed.
    """
    from flows.server import configure, serving_at

    workspace = find_project()
    configure(workspace)
    api_url = serving_at(workspace)
    if api_url is None:
        raise UserError(
            f"{workspace}: nothing is served; `compactlm schedule` does, or set PREFECT_API_URL to the server that has it"
        )
    from flows import schedules as served

    if pause is not None:
        served.change(workspace, api_url, pause, "pause")
    if resume is not None:
        served.change(workspace, api_url, resume, "resume")
    started = served.trigger(workspace, api_url, trigger, accept_data) if trigger is not None else None
    run = _ended(api_url, started) if started is not None and wait else None
    rows = served.read_schedules(workspace, api_url)
    if as_json:
        print_json({"server": api_url, "schedules": rows, "started": started, "ended": run})
    else:
        _show(rows, started, run)
    sys.exit(1 if run is not None and run["state"] in ("Failed", "Crashed", "Cancelled") else 0)


def _ended(api_url: str, started: str) -> Any:
    from flows import schedules as served

    with err.status("waiting for the run to end"):
        while (run := served.ended(api_url, started)) is None:
            time.sleep(0.5)
    return run


def _show(rows: list[Any], started: str | None, run: Any) -> None:
    if started is not None:
        out.print(f"started: flow run {started}" if run is None else f"{run['state']}: {run['message']}", markup=False)
    if not rows:
        out.print("no schedule is served for this workspace")
        return
    table = Table("schedule", "ref", "when", "next", "last", "ended", box=None)
    for row in rows:
        when = ", ".join(row["crons"]) + (f" {row['timezone']}" if row["timezone"] else "")
        state = "paused" if row["paused"] else (row["next_at"] or "") if row["served"] else "not served now"
        last = row["last"] or {"state": "never run", "ended_at": ""}
        doing = "running" if row["running"] else last["state"]
        table.add_row(row["name"], row["ref"] or "this folder", when, state, doing, last["ended_at"])
    out.print(table)


def worker(
    pool: Annotated[str, typer.Argument(help="The work pool, as runtime.pools in params.yaml names it.")],
    limit: Annotated[int, typer.Option(min=1, help="Stages at the same time.")] = 1,
    name: Annotated[str | None, typer.Option(help="The worker's name on Prefect's pages; by default this machine's.")] = None,
    slurm: Annotated[
        str | None, typer.Option(metavar="OPTIONS", help="Make each stage a job of Slurm; options of sbatch.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run stages for runs elsewhere, in this clone and on this machine, until Ctrl-C.

    With --slurm, on a login node, each stage is a job (`sbatch --wait`) in this clone, which the nodes must see.

    Needs PREFECT_API_URL, a Git remote, and the DVC remote of the run. It needs neither MLflow nor a key to promote with.
    """
    from flows.server import API, configure
    from tasks.running.dvc import default_remote
    from tasks.running.pooled import git_remote, queue_of
    from tasks.running.slurm import command_of

    workspace = find_project()
    faults = [] if os.environ.get(API) else [f"{API}: not set; a worker gets its work from the Prefect server of the runs"]
    if git_remote(workspace) is None:
        faults.append(f"{workspace}: no Git remote called origin, from which commits of runs come")
    if default_remote(workspace) is None:
        faults.append(f"{workspace}: no DVC remote, over which files come and go: `dvc remote add --default team ADDRESS`")
    if faults:
        raise UserError("\n".join(faults))
    command = None if slurm is None else command_of(slurm)
    configure(workspace)
    from flows import pools

    called = name or platform.node()
    pools.prepare_pool(workspace, pool, command)
    facts = {"pool": pool, "queue": queue_of(workspace), "limit": limit, "name": called, "workspace": str(workspace)}
    show(facts, as_json, f"{called} works for the pool {pool} in {workspace}, {limit} at a time; Ctrl-C ends it")
    sys.stdout.flush()
    sys.exit(pools.work(workspace, pool, limit, called))
