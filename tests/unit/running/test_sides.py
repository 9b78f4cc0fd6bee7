"""Versions of both sides and rights, as the servers say them: a client that is newer is warned of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.children import LOOPBACK, free_port
from tasks.running import sides
from tasks.running.machine import Finding
from tasks.running.servers import PASSWORD, USER
from tasks.running.sides import database_sides, databases, mlflow_sides, prefect_sides

ME = {USER: "ada", PASSWORD: "very-secret"}


class Server(BaseHTTPRequestHandler):
    """MLflow and Prefect in one, with rights that a test sets: EDIT, READ, or a status in place of an answer."""

    rights: ClassVar[dict[str, str]] = {}
    versions: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        kind = parse_qs(address.query).get("resource_type", [""])[0]
        experiment, model = self.rights.get("experiment", ""), self.rights.get("registered_model", "")
        stage = "deleted" if experiment == "deleted" else "active"
        said = {
            "/version": self.versions.get("mlflow", "3.17.2"),
            "/api/admin/version": f'"{self.versions.get("prefect", "3.8.8")}"',
            "/api/2.0/mlflow/experiments/get-by-name": experiment
            and f'{{"experiment": {{"experiment_id": "7", "lifecycle_stage": "{stage}"}}}}',
            "/api/2.0/mlflow/registered-models/get": model and "{}",
            "/api/3.0/mlflow/users/permissions/get": f'{{"permission": "{self.rights.get(kind)}"}}',
        }.get(address.path, "")
        of_kind = {"/api/2.0/mlflow/experiments/get-by-name": experiment, "/api/2.0/mlflow/registered-models/get": model}
        forbidden = of_kind.get(address.path) == "403"
        self.send_response(403 if forbidden else 200 if said else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sides.metadata, "version", {"mlflow": "3.17.2", "prefect": "3.8.8"}.__getitem__)
    with ThreadingHTTPServer((LOOPBACK, 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
        server.shutdown()


def having(monkeypatch: pytest.MonkeyPatch, address: str, experiment: str, model: str) -> Finding:
    monkeypatch.setattr(Server, "rights", {"experiment": experiment, "registered_model": model})
    [_, rights] = mlflow_sides("MLflow", address, ME, "tiny")
    assert "very-secret" not in str(rights)
    return rights


@pytest.mark.parametrize(
    ("experiment", "model", "state", "says", "do"),
    [
        ("EDIT", "MANAGE", "fine", "'ada': EDIT on the experiment tiny, MANAGE on the registered model tiny; that is enough", ""),
        ("", "", "fine", "not there yet on the experiment tiny", ""),
        ("READ", "READ", "warning", "READ on the experiment tiny", "EDIT on the experiment and EDIT on the registered model is"),
        ("READ", "EDIT", "warning", "EDIT on the registered model tiny", "for `compactlm run` EDIT on the experiment is missing"),
        ("403", "EDIT", "wrong", "'ada': READ and EDIT on the experiment tiny is missing", "ask whoever manages"),
        ("EDIT", "403", "wrong", "refuses the user 'ada': EDIT on the registered model tiny is missing", "ask whoever manages"),
        ("deleted", "EDIT", "wrong", "has a deleted experiment tiny, whose name is taken", "restore it, or choose another"),
    ],
)
def test_rights_are_said(
    monkeypatch: pytest.MonkeyPatch, address: str, experiment: str, model: str, state: str, says: str, do: str
) -> None:
    found = having(monkeypatch, address, experiment, model)
    assert (found.state, says in found.says, do in found.do) == (state, True, True), found
    assert found.facts["user"] == "ada"


@pytest.mark.parametrize(
    ("mlflow", "prefect", "states"),
    [("3.17.9", "3.9.0", ("fine", "fine")), ("3.16.0", "3.7.1", ("warning", "warning")), ("4.0.0", "3.8.0", ("fine", "fine"))],
)
def test_a_client_that_is_newer_than_its_server_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, address: str, mlflow: str, prefect: str, states: tuple[str, str]
) -> None:
    monkeypatch.setattr(Server, "versions", {"mlflow": mlflow, "prefect": prefect})
    first = mlflow_sides("MLflow", address, {}, None)[0]
    second = prefect_sides("Prefect", f"{address}/api", {})[0]
    assert (first.state, second.state) == states
    assert dict(first.facts) == {"there": mlflow, "here": "3.17.2"}
    assert f"{prefect} there and 3.8.8 here" in second.says
    assert all("upgrade the server first" in found.do for found in (first, second) if found.state == "warning")


def test_databases_are_those_of_postgresql_and_one_that_is_away_is_said() -> None:
    where = f"postgresql+asyncpg://me:very-secret@{LOOPBACK}:{free_port()}/prefect"
    environ = {"MLFLOW_TRACKING_URI": "http://x", "PREFECT_SERVER_DATABASE_CONNECTION_URL": where}
    assert databases(environ) == {"PREFECT_SERVER_DATABASE_CONNECTION_URL": where}
    [found] = database_sides("PREFECT_SERVER_DATABASE_CONNECTION_URL", where)
    assert (found.about, found.state, "very-secret" in str(found)) == ("PostgreSQL", "wrong", False)
    assert found.says.startswith("PREFECT_SERVER_DATABASE_CONNECTION_URL: 127.0.0.1:")
