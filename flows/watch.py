"""Finds aliases that were moved without a decision: when MLflow tells of a change, and every so often in any case."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.dead import tag_of
from tasks.errors import RightsError, UserError, explained, outside_errors
from tasks.git import has_git
from tasks.params.file import load_params
from tasks.promotion.drift import Drift, registry_drift, registry_faults
from tasks.promotion.webhook import Receiver
from tasks.registry.tracking import Tracker, store_exists
from tasks.report.markdown import bullets, plain

EVENT = "compactlm.registry.drift"
AGAIN_SECONDS = 30.0  # until a server that was away is asked again
Tell = Callable[[str, list[str]], None]


@flow(name="check-registry", persist_result=False, validate_parameters=False)
def check_registry(workspace: str = ".") -> None:
    """End as failed, with an event and an artifact, when the registry is not what was decided."""
    folder = Path(workspace).absolute()
    name = load_params(folder / "params.yaml").registry.model_name
    drift = registry_drift(Tracker(folder), name) if store_exists(folder) and has_git(folder) else Drift([], "")
    if drift.faults:
        emit_event(EVENT, resource={"prefect.resource.id": f"compactlm.model.{name}"}, payload={"differences": drift.faults})
        create_markdown_artifact(f"{bullets(drift.faults)}\n{plain(drift.advice)}\n", key="drift")
        raise UserError(drift.sentence(name))


def watch(
    workspace: Path, receiver: Receiver, events: queue.Queue[str], every_seconds: float, on_server: bool, tell: Tell
) -> None:
    """Check at once, on each event and every so often, until the end; `tell` hears why and what was found.

    With `on_server` what is found is a failed run on the Prefect server as well. A server that is away is told once, and asked
    again every so often, sooner than otherwise.
    """
    name, because = load_params(workspace / "params.yaml").registry.model_name, "start"
    away = ""
    while True:
        trouble, faults = _look(workspace, name)
        receiver.faults = [trouble] if trouble else faults
        if not trouble or not away:
            tell("MLflow answers again" if away else because, receiver.faults)
        if faults and on_server:
            _tell_server(workspace, tell)
        away = trouble
        try:
            because = events.get(timeout=min(every_seconds, AGAIN_SECONDS) if away else every_seconds)
        except queue.Empty:
            because = "schedule"


def _look(workspace: Path, name: str) -> tuple[str, list[str]]:
    """Return why the registry cannot be asked, empty when it can, and what is wrong with it."""
    try:
        return "", registry_faults(Tracker(workspace), name)
    except RightsError:
        raise  # which no waiting mends
    except _mendable() as error:
        words = str(error) if isinstance(error, UserError) else explained(error)
        return f"the registry cannot be asked: {words}", []


def _mendable() -> tuple[type[BaseException], ...]:
    """Return the errors of which a person can be told; only what is imported by now can have raised one."""
    return (UserError, *outside_errors())


def _tell_server(workspace: Path, tell: Tell) -> None:
    """Make a failed run on the Prefect server; one that is away is told here alone."""
    try:
        with tags(tag_of(workspace)):  # by which its alerts know it
            check_registry(str(workspace), return_state=True)
    except outside_errors() as error:
        tell("Prefect", [explained(error)])


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
