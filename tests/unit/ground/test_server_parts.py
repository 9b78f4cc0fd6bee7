"""The small programs beside the servers: each says what is missing, and shows no password."""

from __future__ import annotations

import configparser
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.members import make_members
from infra.mlflow_server import AUTH_DATABASE, settings, write_private
from infra.ready import is_ready
from infra.stack import Site, Stack
from tasks.children import LOOPBACK, free_port
from tasks.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def ended(*words: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_mlflow_has_the_settings_of_its_users_and_nobody_else_reads_them(tmp_path: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(settings({AUTH_DATABASE: "postgresql://me:p%40ss@host/auth"}))
    section = parser["mlflow"]
    assert (section["database_uri"], section["default_permission"]) == ("postgresql://me:p%40ss@host/auth", "NO_PERMISSIONS")
    assert "admin_password" not in section  # it comes from the environment alone
    place = tmp_path / "new/basic_auth.ini"
    write_private(place, "1")
    place.chmod(0o644)
    write_private(place, "2")
    assert (stat.S_IMODE(place.stat().st_mode), place.read_text(encoding="utf-8")) == (0o600, "2")


def test_a_server_without_its_secrets_is_not_started() -> None:
    code, said = ended("infra.mlflow_server", "--port", "1", MLFLOW_BACKEND_STORE_URI="postgresql://me:very-secret@host/mlflow")
    assert (code, "very-secret" in said) == (1, False)
    assert said.startswith("error: COMPACTLM_AUTH_DATABASE, MLFLOW_AUTH_CONFIG_PATH, MLFLOW_AUTH_ADMIN_PASSWORD: not set")
    code, said = ended("infra.cluster", "/nowhere")
    assert (code, said.startswith("usage: POSTGRES_PASSWORD=... python -m infra.cluster DATA")) == (1, True)


def test_ready_waits_as_long_as_it_may() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://{LOOPBACK}:{server.server_address[1]}"
        assert (is_ready(f"{where}/health"), is_ready(f"{where}/other")) == (True, False)
        server.shutdown()
    began = time.monotonic()
    assert not is_ready(f"http://{LOOPBACK}:{free_port()}/health", 1.0)
    assert time.monotonic() - began >= 1.0


def test_members_need_the_folder_and_the_project(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings.json: there is none; `python -m infra.render"):
        make_members(tmp_path, {"--project": "tiny"})
    (tmp_path / "settings.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="--project: which"):
        make_members(tmp_path, {})


def test_the_settings_of_an_older_folder_get_what_is_new_and_keep_the_rest(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"passwords": {"admin": "kept"}, "ports": {"mlflow": 1}}', encoding="utf-8")
    stack = Stack(tmp_path)
    assert (stack.password("admin"), stack.port("mlflow"), len(stack.password("webhook"))) == ("kept", 1, 32)
    assert Stack(tmp_path).password("webhook") == stack.password("webhook")
    assert Stack(tmp_path, site=Site(ports={"mlflow": 5000})).url("mlflow") == "http://127.0.0.1:5000"
