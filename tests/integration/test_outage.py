"""A Prefect server that is killed while a stage trains costs nothing but what its pages would have shown."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.events.worker import EventsWorker

from flows.outage import Ending, ProgressArtifact, Watch
from flows.server import run_server
from tasks.files import read_json
from tasks.params.file import apply_overrides
from tests.integration.test_flow import runs
from tests.tiny_project import environment

SERVER = "prefect.server.api.server:create_app"
PATIENCE_SECONDS = 120.0


def wait_for(happened: Callable[[], bool], child: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end
        assert child is None or child.poll() is None
        time.sleep(0.05)


class Run:
    """`compactlm run` in a project, of which the second round trains until it is told to end."""

    def __init__(self, workspace: Path, **env: str) -> None:
        path = workspace / "params.yaml"
        path.write_text(apply_overrides(path.read_text(), ["rounds.r2.vocabulary=11999"], path.name))
        self.workspace, self.plan, self.log = workspace, workspace / "misbehave.json", workspace.parent / "stderr"
        self.plan.write_text(json.dumps({"stage": "distill@r2", "how": "hold", "when": "in the middle"}))
        with self.log.open("w") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-c", "from tasks.cli.app import main; main()", "run", "--json"],
                cwd=workspace,
                env={**environment(), **env},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        wait_for((workspace / "waiting").exists, self.child)

    def says(self, words: str) -> Callable[[], bool]:
        return lambda: words in self.log.read_text()

    def end(self) -> tuple[int, float]:
        """Let the stage end; return the exit code of the run, and how many seconds after its last word it came."""
        self.plan.unlink()
        wait_for(self.says("next: "), self.child)
        began = time.monotonic()
        self.told = json.loads(self.child.communicate()[0])
        return self.child.returncode, time.monotonic() - began


@pytest.fixture
def started(built: Path, store: Path) -> Iterator[list[Run]]:
    """Runs that are ended with the test."""
    made: list[Run] = []
    yield made
    for run in made:
        if run.child.poll() is None:
            run.child.kill()
            run.child.communicate()


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(401)  # an answer all the same

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def a_server(port: int) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", port), _Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()
        thread.join()


def test_that_a_server_is_away_and_back_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compactlm")
    record = logging.makeLogRecord({"msg": "a line"})
    lines = logging.getLogger("prefect.task_runs")
    with a_server(0) as url:
        watch = Watch(url)
        watch.look()
    try:
        with watch:
            assert lines.filter(record)
            for _ in range(3):
                watch.look()
            assert watch.away
            assert not lines.filter(record)  # which would be tried for minutes, and told of on standard error
            assert isinstance(EventsWorker._client_override, tuple)
            ending = Ending(watch)
            ending.show(lambda: pytest.fail("nobody would see it"))
            with ProgressArtifact("distill@r1", watch) as hear:
                hear("progress: distill@r1 1/2 50%")
            with a_server(int(url.split(":")[2].split("/")[0])):
                for _ in range(3):
                    watch.look()
            assert not watch.away
            assert lines.filter(record)
        assert lines.filter(record)
    finally:
        EventsWorker.set_client_override(None)
        logging.raiseExceptions = True
    said = [entry.getMessage() for entry in caplog.records]
    assert [("cannot be reached" in words, "is back" in words) for words in said] == [(True, False), (False, True)]


def test_what_a_run_came_to_is_kept_though_the_engine_raises_otherwise() -> None:
    from flows.outage import kept_ending

    watch = Watch(None)  # of no server
    with kept_ending(watch) as ending:
        with kept_ending() as inner, pytest.raises(KeyError), inner.kept():
            raise KeyError("the fault of the work")
        assert isinstance(ending.fault, KeyError)
        assert inner is ending
        ending.show(lambda: (_ for _ in ()).throw(httpx.ConnectError("nobody answers")))  # which stops nothing


def kill_server(parent: int) -> None:
    [server] = [one for one in psutil.Process(parent).children(recursive=True) if SERVER in one.cmdline()]
    server.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_run_whose_server_is_killed_ends_as_it_would_have(built: Path, store: Path, started: list[Run]) -> None:
    run = Run(built)
    started.append(run)
    kill_server(run.child.pid)
    wait_for(run.says("cannot be reached; the run goes on"), run.child)
    code, seconds = run.end()
    said = run.log.read_text()
    assert code == 0, said
    assert seconds < 30, said
    assert said.count("cannot be reached") == 1
    assert "Traceback" not in said
    assert len(said.splitlines()) < 60, said
    assert run.told["state"] == read_json(built / ".compactlm/last_run.json")["state"] == "completed"
    states = {row["name"]: row["state"] for row in run.told["stages"]}
    assert states["distill@r2"] == "executed"
    assert runs(store) == dict.fromkeys(("parent", "r0", "r1", "r2", "r3"), "FINISHED")


@pytest.mark.slow
def test_a_shared_server_that_is_back_shows_the_end(
    built: Path, store: Path, started: list[Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.server.free_port", lambda: 4257)
    with run_server() as ready:
        api = ready()
        run = Run(built, PREFECT_API_URL=api)
        started.append(run)
        kill_server(os.getpid())
        wait_for(run.says("cannot be reached; the run goes on"), run.child)
    with run_server() as ready:
        assert ready() == api
        wait_for(run.says("is back"), run.child)
        code, _ = run.end()
        said = run.log.read_text()
        assert code == 0, said
        assert "Traceback" not in said
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
            [shown] = client.read_flow_runs()
        assert shown.state_name == "Completed"
