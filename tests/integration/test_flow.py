"""The flow, on a real Prefect server of the process and a real MLflow store."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.errors import DataError, StageError, UserError
from tasks.git import git_facts
from tasks.params.file import apply_overrides
from tasks.promotion.approval import approval_faults
from tasks.registry.tracking import Tracker
from tasks.running.good_run import read_good_run
from tasks.running.last_run import read_last_run
from tasks.running.start import only_run
from tests.integration import test_approvals as people

# A run that is suspended leaves sockets of Prefect's own client to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")

registry_template, project, compactlm, keys = people.registry_template, people.project, people.compactlm, people.keys


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


def test_a_run_goes_through_a_fault_then_ends_and_then_has_nothing_to_do(
    built: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert read_good_run(built) is None

    plan.unlink()
    state = run(built)
    record = state.result()
    assert state.is_completed()
    assert runs(store) == dict.fromkeys(("parent", "r0", "r1", "r2", "r3"), "FINISHED")
    assert [row["compute_seconds"] for row in record["stages"] if row["state"] == "executed"] == [0.5]
    assert record["compute_seconds"] == 0.5
    assert record["overhead_seconds"] == pytest.approx(record["wall_seconds"] - record["compute_seconds"], abs=0.02)
    assert read_last_run(built) == record
    good = read_good_run(built)
    assert good is not None
    assert (good["worked"], good["commit"]) == (True, git_facts(built)["git_commit"])

    before = _task_runs()
    assert "prune@r1" in before.values()
    state = run(built)
    assert (state.name, state.is_completed()) == ("NoChange", True)
    assert _task_runs() == before  # not one stage was even asked
    assert read_last_run(built) == record

    monkeypatch.setattr("flows.server.run_server", None)  # the command needs no server to find the same
    monkeypatch.chdir(built)
    monkeypatch.setattr("sys.argv", ["compactlm", "run", "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    assert (end.value.code or 0, json.loads(told.out)["state"]) == (0, "no change")
    assert "nothing to do: all 23 stages are up to date" in told.err
    assert read_last_run(built) == record
    monkeypatch.setattr("sys.argv", ["compactlm", "status", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    good = json.loads(capsys.readouterr().out)["last_good_run"]
    assert (good["worked"], 0 <= good["age_seconds"] < 60) == (False, True)


@pytest.mark.slow
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
    assert state.message.startswith("compactlm-sentiment/2: receipts: artifacts/receipts/baselines.json: cannot be read;")
    EventsWorker.drain_all(timeout=10)
    assert EVENT in _events()


def _events() -> list[str]:
    """Return the names of our events that the server has, once it has one."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for _ in range(100):
            answer = client._client.post("/events/filter", json={"filter": {"event": {"prefix": ["compactlm."]}}}).json()
            if answer["events"]:
                break
            time.sleep(0.1)
    return [one["event"] for one in answer["events"]]


def _task_runs() -> dict[str, str]:
    """Return id -> name of every task run the server knows."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {str(entry.id): entry.name for entry in client.read_task_runs()}


def _run_of_promote(project: Path) -> Any:
    """Return the id of a new run of the flow `promote`, with a deployment as `compactlm serve` makes it."""
    from prefect.client.orchestration import get_client

    from flows.deploy import Times, deployments

    served = deployments(project, Times(None))
    assert [one.flow_name for one in served] == ["compress", "promote", "check-registry"]
    deployment = served[1].apply()
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(deployment, parameters={"version": "1"}).id


def _execute(run_id: Any, state: str, answer: dict[str, str] | None = None) -> Any:
    """Resume a run where there is an answer, run it in this process until it ends or is suspended, return its state."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow
    from prefect.states import Pending

    from flows.promote import promote

    with get_client(sync_client=True) as client:
        if answer is not None:
            client.resume_flow_run(run_id, run_input=answer)
        client.set_flow_run_state(run_id, Pending())
        run = client.read_flow_run(run_id)
        with suppress(Pause):
            run_flow(promote, flow_run=run, parameters=run.parameters, return_type="state")
        found = client.read_flow_run(run_id).state
        assert found.name == state, found
        return found


def test_a_promotion_asks_people_in_a_form_and_holds_no_process(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    run_id = _run_of_promote(project)
    _execute(run_id, "Suspended")  # returned: there is nothing that waits
    signed = compactlm("approve", "--print", "--key", str(keys[people.ADA])).out
    answer = {"name": people.ADA, "decision": "approve", "signature": signed.replace("approve", "approved")}
    _execute(run_id, "Suspended", answer)  # does not count: it is asked again
    _execute(run_id, "Suspended", {**answer, "name": people.BOB, "signature": signed})  # Ada's answer in Bob's name
    state = _execute(run_id, "Completed", {**answer, "signature": signed})
    assert state.message == "decision 2: version 1 (r1) is champion"
    log = json.loads(compactlm("history", "--json").out)["decisions"]
    assert [approval_faults(one) for one in log] == [[], []]
    assert "## Decision 2: promote version 1 (r1), done" in _artifact("decision")


def test_a_promotion_that_is_rejected_in_the_form_fails(project: Path, compactlm: Any, keys: dict[str, Path]) -> None:
    run_id = _run_of_promote(project)
    _execute(run_id, "Suspended")
    signed = compactlm("reject", "--print", "--reason", "too slow", "--key", str(keys[people.BOB])).out
    state = _execute(run_id, "Failed", {"name": people.BOB, "decision": "reject", "signature": signed})
    assert f"is refused: approval: rejected by {people.BOB}: too slow" in state.message


def test_a_registry_that_was_changed_by_hand_is_a_failed_run(project: Path, compactlm: Any) -> None:
    from flows.watch import check_registry

    assert compactlm("promote", "1").code == 0
    assert check_registry(str(project), return_state=True).is_completed()
    Tracker(project).set_alias(people.NAME, "champion", "3")
    state = check_registry(str(project), return_state=True)
    assert isinstance(state.result(raise_on_failure=False), UserError)
    assert "alias champion points at version 3; the log says version 1" in _artifact("drift")


def _artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found = Artifact.get(key)
    assert found is not None
    return str(found.data)


def test_a_run_that_died_with_its_server_of_flows_does_not_stop_the_schedule(project: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Pending

    from flows.deploy import Times, deployments, end_dead_runs

    deployment = deployments(project, Times(None))[0].apply()

    with get_client(sync_client=True) as client:

        def tick() -> str:
            run = client.create_flow_run_from_deployment(deployment)
            client.set_flow_run_state(run.id, Pending())
            return client.read_flow_run(run.id).state_name or ""

        assert tick() == "Pending"  # and now its server is killed
        assert tick() == "Cancelled"
        with only_run(project):
            assert end_dead_runs(project) == 0  # something does run here
        assert tick() == "Cancelled"
        assert end_dead_runs(project) == 1
        assert tick() == "Pending"
        assert end_dead_runs(project) == 1
