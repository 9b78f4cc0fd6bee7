"""Alerts on a real Prefect server, told to receivers on this machine: a webhook and a mail server."""

from __future__ import annotations

import json
import os
import queue
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.states import Completed, Failed, Pending, Running, Scheduled

from flows.alerts import Ways, delete_alerts, make_alerts, shown_alerts, try_alerts
from flows.compress import compress
from flows.dead import tag_of
from flows.watch import check_registry
from tasks.children import LOOPBACK
from tasks.running.alerts import mail_address, read_alerts
from tasks.running.identity import workspace_id
from tests.integration import test_shared_prefect as shared

ALERTS = read_alerts(shared.ROOT / "infra" / "automations")
PATIENCE_SECONDS = 60

# A server of its own; tests/unit/running/test_alert_files.py is the quick sister. Apprise imports imghdr.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")]
server, client, projects = shared.server, shared.client, shared.projects


@contextmanager
def webhook() -> Iterator[tuple[str, queue.Queue[Any]]]:
    """Give the address of a receiver of webhooks, and what comes."""
    told: queue.Queue[Any] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.put({**json.loads(body), "path": self.path, "type": self.headers["Content-Type"]})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{receiver.server_address[1]}", told
        receiver.shutdown()


@contextmanager
def mailbox() -> Iterator[tuple[str, queue.Queue[str]]]:
    """Give the address of a mail server without a password, and the letters that come."""
    letters: queue.Queue[str] = queue.Queue()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            letter: list[str] | None = None
            for line in map(bytes.decode, self.rfile):
                if letter is None:
                    said = {"DATA": "354 go on", "QUIT": "221 bye"}.get(line.strip().upper(), "250 yes")
                    letter = [] if said.startswith("354") else None
                    self.wfile.write(f"{said}\r\n".encode())
                elif line == ".\r\n":
                    letters.put("".join(letter))
                    letter = None
                    self.wfile.write(b"250 taken\r\n")
                else:
                    letter.append(line)

    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Handler) as receiver:
        receiver.daemon_threads = True
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield f"smtp://{LOOPBACK}:{receiver.server_address[1]}?from=alerts@example.org", letters
        receiver.shutdown()


def ended(client: SyncPrefectClient, project: Path, state: Any, flow: Any = compress) -> FlowRun:
    """Return a run that was running and has come to a state, as the server sees runs of `compactlm run`."""
    made = client.create_flow_run(flow, state=Running(), tags=[tag_of(project)])
    client.set_flow_run_state(made.id, state, force=True)
    return made


def beat(run: FlowRun, project: Path) -> None:
    """Say that a run is there, as Prefect's engine does in the process of a run."""
    related = [
        {
            "prefect.resource.id": f"prefect.flow.{run.flow_id}",
            "prefect.resource.role": "flow",
            "prefect.resource.name": "compress",
        },
        {"prefect.resource.id": f"prefect.tag.{tag_of(project)}", "prefect.resource.role": "tag"},
    ]
    resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
    emit_event("prefect.flow-run.heartbeat", resource=resource, related=related)
    EventsWorker.drain_all(timeout=10)


def test_a_run_that_fails_is_told_within_seconds_and_one_that_succeeds_is_not(
    projects: list[Path], client: SyncPrefectClient, server: str
) -> None:
    ada, bob = projects
    with webhook() as (address, told), mailbox() as (smtp, letters):
        done = make_alerts(ada, ALERTS, Ways(f"{address}/token", mail_address(smtp, "team@example.org")))
        assert set(done.values()) == {"made"}
        assert len(done) == len(ALERTS) == 6
        ended(client, ada, Completed())
        ended(client, bob, Failed(message="another workspace's"))
        run = ended(client, ada, Failed(message='distill@r1: "memory" {{ 7 * 7 }} </b>\nis short'))
        began = time.monotonic()
        said = told.get(timeout=PATIENCE_SECONDS)
        took = time.monotonic() - began
        page = f"{server.removesuffix('/api')}/runs/flow-run/{run.id}"
        assert said | {"text": ""} == {
            "alert": "compress failed",
            "about": next(alert["description"] for alert in ALERTS if alert["name"] == "compress failed"),
            "workspace": workspace_id(ada),
            "folder": str(ada),
            "flow": "compress",
            "run": run.name,
            "state": "Failed",
            "message": 'distill@r1: "memory" {{ 7 * 7 }} </b>\nis short',
            "page": page,
            "text": "",
            "path": "/token",
            "type": "application/json",
        }
        print(f"the webhook came after {took:.1f} s")
        letter = letters.get(timeout=PATIENCE_SECONDS)
        assert f"Subject: compress failed (project {workspace_id(ada)})" in letter
        assert ("To: team@example.org" in letter, "alerts@example.org" in letter) == (True, True)
        assert page in letter.replace("=\r\n", "")
        run = ended(client, ada, Failed(message="alias champion"), check_registry)
        assert told.get(timeout=PATIENCE_SECONDS)["alert"] == "drift"
        assert try_alerts(ada) == "trial of the alerts"
        assert told.get(timeout=PATIENCE_SECONDS)["message"] == "a trial of the alerts: nothing has failed"
        time.sleep(2)
        assert told.empty()  # neither of the run that went well, nor of the other workspace


def test_made_again_nothing_is_made_twice_and_an_address_that_changed_counts(
    projects: list[Path], client: SyncPrefectClient
) -> None:
    ada, bob = projects
    with webhook() as (address, told):
        make_alerts(ada, ALERTS, Ways("http://127.0.0.1:9/before"))
        make_alerts(bob, ALERTS[:1], Ways(f"{address}/bob"))
        assert set(make_alerts(ada, ALERTS, Ways("http://127.0.0.1:9/before")).values()) == {"unchanged"}
        louder = [{**alert, "description": "louder"} for alert in ALERTS[1:]]
        done = make_alerts(ada, louder, Ways(f"{address}/after"))  # type: ignore[arg-type]
        assert sorted(done.values()) == ["changed"] * 5 + ["removed"]
        assert set(shown_alerts(ada).values()) == {"webhook"}
        ended(client, ada, Failed(), check_registry)
        assert told.get(timeout=PATIENCE_SECONDS)["path"] == "/after"
        assert len(delete_alerts(ada)) == 5
        assert (shown_alerts(ada), delete_alerts(ada), len(shown_alerts(bob))) == ({}, {}, 1)
        documents = client.read_block_documents(include_secrets=False)
        assert not any(workspace_id(ada) in str(document.name) for document in documents)
        assert not any(f"{address}/bob" in str(document.data) for document in documents)  # nor do Prefect's pages


def test_a_run_that_is_late_stuck_or_silent_is_told(projects: list[Path], client: SyncPrefectClient) -> None:
    ada = projects[0]
    short = [{**alert, "trigger": {**alert["trigger"], "within": alert["trigger"]["within"] and 10}} for alert in ALERTS]
    with webhook() as (address, told):
        make_alerts(ada, short, Ways(address))  # type: ignore[arg-type]
        late, delayed = (client.create_flow_run(compress, name=name, tags=[tag_of(ada)]) for name in ("late", "delayed"))
        for run in (late, delayed):
            client.set_flow_run_state(run.id, Scheduled(name="Late"), force=True)
        client.set_flow_run_state(delayed.id, Pending(), force=True)
        ended(client, ada, Completed(name="NoChange"))
        client.create_flow_run(compress, name="stuck", state=Running(), tags=[tag_of(ada)])
        killed, well = (
            client.create_flow_run(compress, name=name, state=Pending(), tags=[tag_of(ada)]) for name in ("killed", "well")
        )
        beat(killed, ada)
        for _ in range(3):  # which is longer than it may be silent
            beat(well, ada)
            time.sleep(6)
        client.set_flow_run_state(well.id, Completed(), force=True)
        seen = [told.get(timeout=PATIENCE_SECONDS) for _ in range(3)]
        assert {(said["alert"], said["run"], said["state"]) for said in seen} == {
            ("late", "late", "Late"),
            ("stuck", "stuck", "Running"),
            ("silent", "killed", "Pending"),
        }
        time.sleep(12)
        assert told.empty()


@pytest.fixture(autouse=True)
def no_alerts(projects: list[Path], server: str) -> Iterator[None]:
    yield
    for project in projects:
        delete_alerts(project)


def test_the_command_shows_no_token(
    projects: list[Path], server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tasks.cli import app as cli

    for name in ("dvc.yaml", "params.yaml"):
        (projects[0] / name).touch()
    (tmp_path / "hook").write_text("http://127.0.0.1:9/very-secret\n", encoding="utf-8")
    monkeypatch.chdir(projects[0])
    monkeypatch.setenv("COMPACTLM_ALERT_WEBHOOK_FILE", str(tmp_path / "hook"))
    for arguments in ([], ["--show"], ["--delete"]):
        monkeypatch.setattr("sys.argv", ["compactlm", "alerts", *arguments, "--json"])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        said = capsys.readouterr()
        assert (leave.value.code, "very-secret" in said.out + said.err) == (0, False), said.err
        assert f"compactlm {workspace_id(projects[0])}: late" in said.out
    assert os.environ["PREFECT_API_URL"] == server
    with get_client(sync_client=True) as client:
        assert client.read_automations() == []
