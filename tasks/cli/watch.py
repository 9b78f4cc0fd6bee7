"""The command of `compactlm` that watches the registry for aliases moved without a decision."""

from __future__ import annotations

import os
import queue
from datetime import UTC, datetime
from typing import Annotated

import typer

from tasks.cli.console import err, print_json
from tasks.cli.project import find_project, params_of, require_store
from tasks.errors import UserError

SECRET = "COMPACTLM_WEBHOOK_SECRET"


def watch(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to take MLflow's webhooks; 0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    every: Annotated[float, typer.Option(min=0.01, help="Minutes between checks that no webhook asks for.")] = 30.0,
    register: Annotated[
        str | None, typer.Option(metavar="URL", help="Let the MLflow server send its webhooks to this address of ours.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value a line for programs.")] = False,
) -> None:
    """Tell when an alias is moved without a decision, until Ctrl-C; GET /health is 503 while one is.

    While MLflow does not answer that is told, /health is 503 too, and it is asked again after half a minute.

    /health also says when the last run of this workspace ended well, and how long ago that is.

    The secret that MLflow signs its webhooks with is read from COMPACTLM_WEBHOOK_SECRET.
    """
    from flows.server import API, configure

    workspace = find_project()
    params_of(workspace)
    secret = os.environ.get(SECRET, "")
    if len(secret) < 16:
        raise UserError(f"{SECRET}: a secret of at least 16 characters is needed in the environment: openssl rand -hex 32")
    configure(workspace)
    from flows.watch import receiving, watch
    from tasks.promotion.webhook import EVENTS
    from tasks.registry.reading import default_uri
    from tasks.registry.tracking import Tracker
    from tasks.running.good_run import read_good_run

    require_store(workspace)
    if register is not None and not default_uri(workspace).startswith("http"):
        raise UserError(
            "--register: only an MLflow server sends webhooks; MLFLOW_TRACKING_URI names it. Without one, --every checks"
        )

    def tell(because: str, faults: list[str]) -> None:
        if as_json:
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            print_json({"at": at, "because": because, "differences": faults}, indent=None)
        for line in () if as_json else faults or ["the aliases are what was decided"]:
            err.print(f"{because}: {line}")

    events: queue.Queue[str] = queue.Queue()
    with receiving(host, port, secret, events) as receiver:
        receiver.facts = lambda: {"last_good_run": read_good_run(workspace)}
        address = f"http://{host}:{receiver.server_address[1]}"
        if register is not None:
            Tracker(workspace).ensure_webhook("compactlm", register, list(EVENTS), secret)
        err.print(f"listening at {address}; its state is at {address}/health")
        watch(workspace, receiver, events, 60 * every, API in os.environ, tell)
