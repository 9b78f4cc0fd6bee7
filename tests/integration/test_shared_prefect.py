"""Two workspaces whose folders have one name, on one Prefect server: neither replaces, pauses or crashes what is the other's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import DeploymentStatus
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from flows.audit import audit_champion
from flows.compress import compress
from flows.dead import tag_of
from flows.deploy import Times, deployments, end_dead_runs, take_over
from flows.promote import promote
from flows.scheduled import scheduled_run
from flows.server import API, prefect_server
from tasks.running.scheduled import Schedule, only_tick
from tasks.running.start import only_run
from tests.integration.test_serve import wait_for

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow  # a server of its own for each


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a real server that others share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(API, raising=False)
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        with prefect_server() as url:
            patch.setenv(API, f"{url}/api")
            with temporary_settings({PREFECT_API_URL: f"{url}/api"}):
                yield f"{url}/api"
                APILogHandler().flush()  # what is still on its way would be tried for after the server has gone


@pytest.fixture
def client(server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def projects(tmp_path: Path) -> list[Path]:
    """Return two workspaces that are called alike, in which no run can begin: they have no dvc.yaml."""
    made = [tmp_path / name / "project" for name in ("ada", "bob")]
    for project in made:
        project.mkdir(parents=True)
    return made


def apply(project: Path) -> list[Any]:
    return [deployment.apply() for deployment in deployments(project, Times("0 2 * * *"))]


def test_names_of_two_folders_called_alike_are_two(projects: list[Path], client: SyncPrefectClient) -> None:
    ada, bob = (apply(project) for project in projects)
    assert not {*ada} & {*bob}
    for project, made in zip(projects, (ada, bob), strict=True):
        served = [client.read_deployment(each) for each in made]
        assert {entry.parameters["workspace"] for entry in served} == {str(project)}
        assert all(entry.name.startswith("compactlm project ") for entry in served)
    assert apply(projects[0]) == ada  # served once more it is the same


def test_a_run_that_was_killed_is_crashed_by_the_next_one_here_and_by_no_other(
    projects: list[Path], client: SyncPrefectClient
) -> None:
    ada, bob = (client.create_flow_run(compress, state=Running(), tags=[tag_of(project)]).id for project in projects)

    def states() -> list[str]:
        return [str(client.read_flow_run(run).state_name) for run in (ada, bob)]

    compress(str(projects[1]), return_state=True)  # it ends at once, over its params
    assert states() == ["Running", "Crashed"]
    with only_run(projects[0]):
        compress(str(projects[0]), return_state=True)
        assert states() == ["Running", "Crashed"]  # something does run here
    assert end_dead_runs(projects[0]) == 1  # as a server of flows does that starts
    assert states() == ["Crashed", "Crashed"]


def test_a_tick_that_was_killed_is_crashed_when_its_schedule_is_served_again(
    projects: list[Path], client: SyncPrefectClient
) -> None:
    ada, bob = projects
    asked = [(ada, "nightly"), (ada, "weekly"), (bob, "nightly")]
    ticks = [
        client.create_flow_run(scheduled_run, parameters={"name": name}, state=Running(), tags=[tag_of(project)]).id
        for project, name in asked
    ]
    schedule = Schedule(ada, "nightly", "origin/main")
    with only_tick(schedule):
        assert end_dead_runs(ada, schedule) == 0  # it does run
    audit = client.create_flow_run(audit_champion, state=Running(), tags=[tag_of(ada)]).id
    assert end_dead_runs(ada, schedule) == 2
    assert [client.read_flow_run(run).state_name for run in (audit, *ticks)] == ["Crashed", "Crashed", "Running", "Running"]


def test_what_a_former_version_served_is_taken_over_by_its_own_workspace_alone(
    projects: list[Path], client: SyncPrefectClient
) -> None:
    ada, bob = projects
    former = promote.to_deployment("compactlm project", parameters={"workspace": str(bob)}).apply()
    waiting = client.create_flow_run_from_deployment(former).id
    assert take_over(ada) == 0
    assert client.read_deployment(former).parameters == {"workspace": str(bob)}
    assert take_over(bob) == 1
    assert take_over(bob) == 0
    state = client.read_flow_run(waiting).state
    assert state is not None
    assert (state.name, "start it there" in str(state.message)) == ("Cancelled", True)


@pytest.mark.slow
def test_a_server_of_flows_that_ends_pauses_its_own_alone(
    projects: list[Path], client: SyncPrefectClient, server: str, tmp_path: Path
) -> None:
    ada, bob = projects
    others = apply(bob)
    code = "import sys; from pathlib import Path; from flows.deploy import Times, serve; "
    code += "serve(Path(sys.argv[1]), Times('0 2 * * *'), sys.argv[2])"
    env = {**os.environ, API: server, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, str(ada), server], env=env, cwd=ada) as serving:
        try:  # a deployment is ready once somebody asks for its runs
            own = wait_for(lambda: [entry for entry in client.read_deployments() if _is_ready(entry, ada)])
        finally:
            serving.send_signal(signal.SIGINT)
    assert all(client.read_deployment(entry.id).paused for entry in own)
    assert [client.read_deployment(each).paused for each in others] == [False] * len(others)


def _is_ready(entry: Any, project: Path) -> bool:
    return bool(entry.parameters["workspace"] == str(project) and entry.status == DeploymentStatus.READY)
