"""The flow, on a real Prefect server of the process and a real MLflow store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DataError, StageError
from tasks.lineage.last_run import read_last_run
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

    before = _task_runs()
    assert "prune@r1" in before.values()
    state = run(built)
    assert (state.name, state.is_completed()) == ("NoChange", True)
    assert _task_runs() == before  # not one stage was even asked
    assert read_last_run(built) == record


def _task_runs() -> dict[str, str]:
    """Return id -> name of every task run the server knows."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {str(entry.id): entry.name for entry in client.read_task_runs()}
