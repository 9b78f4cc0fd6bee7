"""The flow, on a real Prefect server of the process and a real MLflow store."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DataError, StageError
from tasks.lineage.last_run import read_last_run
from tasks.lineage.start import only_run
from tasks.params import apply_overrides


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


def run(workspace: Path) -> Any:
    from flows.compress import compress

    return compress(str(workspace), return_state=True)


def runs(store: Path) -> dict[str, str]:
    """Return name -> status of the runs in a store."""
    with sqlite3.connect(store) as connection:
        found = dict(connection.execute("SELECT name, status FROM runs").fetchall())
    connection.close()
    return {("parent" if name.startswith("compress") else name): status for name, status in found.items()}


def test_a_run_goes_through_a_fault_then_ends_and_then_has_nothing_to_do(built: Path, store: Path) -> None:
    path = built / "params.yaml"
    path.write_text(apply_overrides(path.read_text(), ["rounds.r2.vocabulary=11999"], path.name))
    plan = built / "misbehave.json"
    plan.write_text(json.dumps({"stage": "prune@r2", "how": "refuse"}))
    state = run(built)
    assert isinstance(state.result(raise_on_failure=False), DataError)
    assert runs(store) == {}  # bad input leaves no trace

    plan.write_text(json.dumps({"stage": "distill@r2", "how": "crash", "when": "in the middle"}))
    state = run(built)
    assert isinstance(state.result(raise_on_failure=False), StageError)
    assert runs(store)["parent"] == "FAILED"
    record = read_last_run(built)
    assert record is not None
    assert record["state"] == "failed"
    states = {row["name"]: row["state"] for row in record["stages"]}
    assert (states["prune@r2"], states["distill@r2"], states["gate@r2"]) == ("executed", "failed", "not run")

    plan.unlink()
    state = run(built)
    record = state.result()
    assert state.is_completed()
    assert runs(store) == dict.fromkeys(("parent", "r0", "r1", "r2", "r3"), "FINISHED")
    assert record["compute_seconds"] == pytest.approx(0.5 * sum(r["state"] == "executed" for r in record["stages"]))
    assert record["overhead_seconds"] == pytest.approx(record["wall_seconds"] - record["compute_seconds"], abs=0.02)
    assert read_last_run(built) == record

    began = time.monotonic()
    state = run(built)
    assert (state.name, state.is_completed()) == ("NoChange", True)
    assert time.monotonic() - began < 10
    assert read_last_run(built) == record
    names = _task_run_names()
    assert "prune@r1" in names


def test_a_scheduled_audit_alerts_on_the_first_fault(built: Path, store: Path) -> None:
    from prefect.events.worker import EventsWorker

    from flows.audit import EVENT, audit_champion

    state = audit_champion(str(built), return_state=True)
    assert (state.name, state.is_completed()) == ("NoChampion", True)
    run(built)
    with only_run(built):
        assert audit_champion(str(built), return_state=True).name == "Skipped"
    state = audit_champion(str(built), return_state=True)  # the receipts of these stages say next to nothing
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith(
        "compactlm-sentiment/2: receipts: artifacts/receipts/baselines.json: cannot be read;"
    )
    EventsWorker.drain_all(timeout=10)
    assert EVENT in _events()


def _events() -> list[str]:
    """Return the names of our events that the server has, once it has one."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for _ in range(100):
            answer = client._client.post(
                "/events/filter", json={"filter": {"event": {"prefix": ["compactlm."]}}}
            ).json()
            if answer["events"]:
                break
            time.sleep(0.1)
    return [one["event"] for one in answer["events"]]


def _task_run_names() -> set[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {entry.name for entry in client.read_task_runs()}
