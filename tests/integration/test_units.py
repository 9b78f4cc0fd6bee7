"""What the units of systemd start is started: the cluster is made, the servers answer, members get their rights."""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import render
from infra.forms import systemd
from infra.forms.shared import Places
from infra.members import make_members
from infra.program import as_user
from infra.stack import Stack
from tasks.children import LOOPBACK, free_port
from tasks.running.servers import ask_mlflow, ask_prefect, rights_at
from tests.marks import need_postgres
from tests.tiny_project import ROOT

pytestmark = pytest.mark.slow  # starts three servers; tests/unit/ground/test_render.py is the quick sister


def service(text: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {key: value.replace("$$", "$").replace("%%", "%") for key, value in parser["Service"].items()}


def environment(unit: dict[str, str], secrets: str) -> dict[str, str]:
    """Return the variables of a unit."""
    env = {name: os.environ[name] for name in ("PATH", "HOME")}
    env |= dict(word.split("=", 1) for word in shlex.split(unit.get("Environment", "")))
    return env | dict(line.split("=", 1) for line in secrets.splitlines())


@contextmanager
def started(unit: dict[str, str], secrets: str, log: Path) -> Iterator[None]:
    """Run a unit as systemd would: before, itself, after, each with its variables."""
    env = environment(unit, secrets)
    user: dict[str, Any] = as_user("postgres") if "pg_isready" in unit["ExecStartPost"] else {}

    def command(name: str) -> list[str]:
        return shlex.split(unit[name])

    with log.open("wb") as file:
        if "ExecStartPre" in unit:
            subprocess.run(command("ExecStartPre"), env=env, cwd=ROOT, check=True, stdout=file, stderr=file)
        running = subprocess.Popen(command("ExecStart"), env=env, cwd=ROOT, stdout=file, stderr=file, **user)
        try:
            subprocess.run(command("ExecStartPost"), env=env, cwd=ROOT, check=True, stdout=file, stderr=file)
            yield
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def test_the_servers_of_the_units_answer_and_know_the_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_postgres()
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    ports = {name: free_port() for name in render.PORTS}
    monkeypatch.setattr(render, "PORTS", ports)
    # Not below pytest's folder, which no other user may enter, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="compactlm-units-") as name:
        home = Path(name)
        home.chmod(0o711)
        site = render.in_units(render.pages_of({}), systemd.postgres())
        site = replace(site, home=name, scratch=f"{name}/scratch", data=f"{name}/postgres")
        stack = Stack(home / "made", site=site)
        code = home / "code"
        code.mkdir()
        (code / ".venv").symlink_to(Path(sys.executable).parents[1])
        texts = systemd.files(render.described(stack), Places(str(code), name))
        secrets = render.secret_files(stack)
        began = time.monotonic()

        def run(unit: str) -> Any:
            return started(service(texts[systemd.unit_name(unit)]), secrets[f"{unit}.env"], home / f"{unit}.log")

        with run("postgres"), run("mlflow"), run("prefect"):
            print(f"all three answer after {time.monotonic() - began:.0f} s")
            for _ in range(2):  # done again it adds nothing and breaks nothing
                lines = make_members(home / "made", {"--project": "tiny"})
            assert lines[0] == f"as reader: . {home / 'made/reader.env'}"
            for role, right in (("reader", "READ"), ("runner", "EDIT")):
                environ = stack.environment(role)
                server = ask_mlflow(environ["MLFLOW_TRACKING_URI"], environ)
                assert rights_at(server, environ, "tiny") == {"experiment": right, "registered_model": right}
            environ = stack.environment("runner")
            assert ask_prefect(environ["PREFECT_API_URL"], environ).get("admin/version")[0] == 200
            assert ask_prefect(environ["PREFECT_API_URL"], {}).get("admin/version")[0] == 401
            with urllib.request.urlopen(f"http://{LOOPBACK}:{ports['prefect']}/", timeout=30) as page:
                assert page.status == 200
            assert (home / "prefect/pages").is_dir()  # and not beside Prefect's code, which may be read-only
            assert oct((home / "scratch/basic_auth.ini").stat().st_mode & 0o777) == "0o600"

        with run("postgres"):  # as infra/README.md upgrades: the database alone runs
            for name, words in (
                ("mlflow", "-m infra.mlflow_server --upgrade"),
                ("prefect", "-m prefect server database upgrade -y"),
            ):
                env = environment(service(texts[systemd.unit_name(name)]), secrets[f"{name}.env"])
                done = subprocess.run(
                    [sys.executable, *words.split()], env=env, cwd=ROOT, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                assert not any(password in done.stdout + done.stderr for password in stack.settings["passwords"].values())
