"""Finds aliases that were moved without a decision: when MLflow tells of a change, and every so often in any case."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from tasks.errors import UserError
from tasks.git import has_git
from tasks.params.file import load_params
from tasks.promotion.drift import Drift, registry_drift, registry_faults
from tasks.promotion.webhook import Receiver
from tasks.registry.tracking import Tracker, store_exists
from tasks.report.markdown import bullets

EVENT = "compactlm.registry.drift"
Tell = Callable[[str, list[str]], None]


@flow(name="check-registry", persist_result=False, validate_parameters=False)
def check_registry(workspace: str = ".") -> None:
    """End as failed, with an event and an artifact, when the registry is not what was decided."""
    folder = Path(workspace).absolute()
    name = load_params(folder / "params.yaml").registry.model_name
    drift = registry_drift(Tracker(folder), name) if store_exists(folder) and has_git(folder) else Drift([], "")
    if drift.faults:
        emit_event(EVENT, resource={"prefect.resource.id": f"compactlm.model.{name}"}, payload={"differences": drift.faults})
        create_markdown_artifact(f"{bullets(drift.faults)}\n{drift.advice}{'.' if drift.advice else ''}\n", key="drift")
        raise UserError(drift.sentence(name))


def watch(
    workspace: Path, receiver: Receiver, events: queue.Queue[str], every_seconds: float, on_server: bool, tell: Tell
) -> None:
    """Check at once, on each event and every so often, until the end; `tell` hears why and what was found.

    With `on_server` what is found is a failed run on the Prefect server as well.
    """
    name, because = load_params(workspace / "params.yaml").registry.model_name, "start"
    while True:
        receiver.faults = registry_faults(Tracker(workspace), name)
        tell(because, receiver.faults)
        if receiver.faults and on_server:
            check_registry(str(workspace), return_state=True)
        try:
            because = events.get(timeout=every_seconds)
        except queue.Empty:
            because = "schedule"


@contextmanager
def receiving(host: str, port: int, secret: str, events: queue.Queue[str]) -> Iterator[Receiver]:
    """Receive webhooks in a thread until the end of the `with`."""
    with Receiver(host, port, secret, events.put) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
