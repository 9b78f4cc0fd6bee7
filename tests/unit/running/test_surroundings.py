"""What is around a run is looked at before it: every fault is named with its variable or file, and what is honest is none."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tasks import git as door
from tasks.children import LOOPBACK, free_port
from tasks.running.surroundings import surroundings_faults, surroundings_remarks

CONFLICT = "a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with Git and DVC, whose name has all that a name can have."""
    folder = tmp_path / "my project \u00fc a#b it's 50%20 off [x] $HOME?"
    (folder / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        (folder / name).write_text("a: 1\n")
    (folder / "sources.lock").write_text("{}\n")
    return folder


class Versions(BaseHTTPRequestHandler):
    """Says the versions of servers as MLflow and Prefect do; `said` may be changed by a test."""

    said: ClassVar[dict[str, str]] = {"/version": "3.17.2", "/api/admin/version": '"3.8.8"'}

    def do_GET(self) -> None:
        words = self.said.get(self.path, "")
        self.send_response(200 if words else 404)
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def listening() -> Iterator[int]:
    with ThreadingHTTPServer((LOOPBACK, 0), Versions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_an_honest_project_has_no_fault(project: Path, listening: int, tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "not" / "yet" / "made"),
        "PREFECT_API_URL": f"http://{LOOPBACK}:{listening}/api",
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{listening}",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    assert surroundings_faults(project, environ) == []
    assert surroundings_faults(project, {}) == []


@pytest.mark.parametrize(
    ("said", "mlflow", "prefect"),
    [
        (
            {"/version": "2.22.0", "/api/admin/version": '"3.4.1"'},
            "runs MLflow 2.22.0; 3.17 or newer",
            "runs Prefect 3.4.1; 3.8 or",
        ),
        ({"/version": "<html>", "/api/admin/version": "{}"}, "is no server of MLflow", "is no API of Prefect"),
        ({}, "is no server of MLflow", "is no API of Prefect"),
    ],
)
def test_a_server_that_is_too_old_or_another_one_is_said(
    project: Path, listening: int, said: dict[str, str], mlflow: str, prefect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Versions, "said", said)
    where = f"http://{LOOPBACK}:{listening}"
    first, second = surroundings_faults(project, {"MLFLOW_TRACKING_URI": where, "PREFECT_API_URL": f"{where}/api"})
    assert first.startswith(f"MLFLOW_TRACKING_URI: {where} {mlflow}")
    assert second.startswith(f"PREFECT_API_URL: {where}/api {prefect}")


@pytest.mark.parametrize("name", [".dvc/config", "params.yaml", "dvc.yaml", "dvc.lock", "sources.lock", "decisions.jsonl"])
def test_marks_of_a_conflict_are_said_with_file_and_line(project: Path, name: str) -> None:
    (project / name).write_text(CONFLICT)
    [fault] = surroundings_faults(project, {})
    assert fault.startswith(f"{name}: line 2 has a conflict mark of Git (<<<<<<<); ")


@pytest.mark.parametrize("content", [b"a: [1", b"- 1\n", b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["dvc.lock", "sources.lock"])
def test_a_lock_file_that_is_no_record_is_said(project: Path, name: str, content: bytes) -> None:
    (project / name).write_bytes(content)
    [fault] = surroundings_faults(project, {})
    assert fault.startswith(f"{name}: ")
    assert f"git checkout {name}" in fault


def test_a_line_that_looks_like_a_conflict_is_none(project: Path) -> None:
    (project / "params.yaml").write_text("# <<<<<<< below\na: '======='\n<<<<<<<<<< eight: 1\n")
    assert surroundings_faults(project, {}) == []


@pytest.mark.parametrize("name", ["TMPDIR", "HOME", "PREFECT_HOME", "XDG_CACHE_HOME"])
def test_a_folder_that_cannot_be_written_is_said_by_its_variable(project: Path, name: str) -> None:
    (project / "file").write_text("")
    for place, words in (("file", "is no folder"), ("file/below", "which is no folder")):
        [fault] = surroundings_faults(project, {name: str(project / place)})
        assert fault.startswith(f"{name}: {str(project / place)!r} is ")
        assert words in fault
    faults = surroundings_faults(project, {name: "/proc/none"})  # a home that is only read is enough
    assert ["cannot be written" in fault for fault in faults] == ([] if name in ("HOME", "XDG_CACHE_HOME") else [True])


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("PREFECT_API_URL", "http://{host}:{port}/api"),
        ("MLFLOW_TRACKING_URI", "http://{host}:{port}"),
        ("MLFLOW_REGISTRY_URI", "postgresql+psycopg2://me:secret@{host}:{port}/mlflow"),
    ],
)
def test_a_server_that_does_not_listen_is_said_by_its_variable(project: Path, variable: str, address: str) -> None:
    port = free_port()
    [fault] = surroundings_faults(project, {variable: address.format(host=LOOPBACK, port=port)})
    assert fault.startswith(f"{variable}: {LOOPBACK}:{port} cannot be reached (")
    assert "secret" not in fault


def test_servers_are_asked_all_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        time.sleep(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr("tasks.running.surroundings.PROBE_SECONDS", 0.3)
    monkeypatch.setattr(socket, "create_connection", silent)
    names = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    began = time.monotonic()
    faults = surroundings_faults(project, dict.fromkeys(names, "http://example.org"))
    assert time.monotonic() - began < 0.8
    assert sorted(fault.partition(":")[0] for fault in faults) == sorted(names)


@pytest.mark.parametrize("address", ["file:///runs", "/runs", "./mlruns", "ftp://host/runs", "nonsense"])
def test_a_store_of_a_kind_that_mlflow_does_not_write_any_more_is_refused(project: Path, address: str) -> None:
    [fault] = surroundings_faults(project, {"MLFLOW_TRACKING_URI": address})
    assert fault.startswith(f"MLFLOW_TRACKING_URI: {address!r} is ")
    assert "sqlite:////PATH/mlflow.db" in fault


@pytest.mark.parametrize("address", ["nonsense", "http://[::1", "http://host:port/api", "ftp://host/api"])
def test_what_is_no_address_is_said(project: Path, address: str) -> None:
    [fault] = surroundings_faults(project, {"PREFECT_API_URL": address})
    assert fault.startswith(f"PREFECT_API_URL: {address!r} is no address")


def test_a_project_outside_of_git_or_dvc_is_refused_with_what_to_do(tmp_path: Path) -> None:
    [fault] = surroundings_faults(tmp_path, {})
    assert "`dvc init`" in fault
    (tmp_path / ".dvc").mkdir()
    [fault] = surroundings_faults(tmp_path, {})
    assert "`git init`" in fault
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    assert surroundings_faults(tmp_path, {}) == []


def test_a_repository_of_another_user_and_a_missing_git_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "OWN_ENV", {**door.OWN_ENV, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    [fault] = surroundings_faults(project, {})
    assert "safe.directory" in fault
    monkeypatch.setenv("PATH", str(project))
    [fault] = surroundings_faults(project, {})
    assert "install Git" in fault


@pytest.mark.parametrize("name", ["{y}", "a\nb", "a\tb"])
def test_a_name_that_dvc_cannot_hold_is_refused(project: Path, name: str) -> None:
    [fault] = surroundings_faults(project.rename(project.with_name(name)), {})
    assert "rename or move the folder" in fault


def test_git_without_a_commit_is_a_remark(project: Path) -> None:
    [remark] = surroundings_remarks(project)
    assert "Git has no commit yet" in remark
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "1"], cwd=project, check=True)
    assert surroundings_remarks(project) == []
    [remark] = surroundings_remarks(Path("/"))
    assert "no Git repository" in remark
