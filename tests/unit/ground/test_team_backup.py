"""Backup of a team's servers without any: settings, dumps and files come back, and nothing is written over.

With PostgreSQL, MLflow and a bucket: tests/integration/test_servers.py.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from infra import keep
from infra.cluster import DATABASES
from infra.stack import Stack
from tasks.children import LOOPBACK
from tasks.errors import UserError

FILES = {"mlflow/1/model/weights": b"12345", "dvc/files/md5/ab/cd": b"678"}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Stand-ins for PostgreSQL's programs; what was loaded into each database."""
    found: dict[str, bytes] = {}

    def does(stack: Stack, program: str, *words: str) -> None:
        options = dict(word.split("=", 1) for word in words if "=" in word)
        if program == "pg_dump":
            Path(options["--file"]).write_text(f"dump of {words[-1]}", encoding="utf-8")
        else:
            found[options["--dbname"]] = Path(words[-1]).read_bytes()

    monkeypatch.setattr(keep, "_postgres_does", does)
    monkeypatch.setattr(keep, "_postgres_version", lambda: "15")
    for name in ("_postgres", "_own_postgres"):
        monkeypatch.setattr(keep, name, lambda _: nullcontext())
    for name in ("prepare", "make_databases"):
        monkeypatch.setattr(Stack, name, lambda _: None)
    return found


@pytest.fixture
def stack(tmp_path: Path, loaded: dict[str, bytes]) -> Stack:
    made = Stack(tmp_path / "stack")
    assert made.settings
    for name, content in FILES.items():
        (made.folder / name).parent.mkdir(parents=True)
        (made.folder / name).write_bytes(content)
    return made


@pytest.fixture
def busy(stack: Stack) -> Iterator[int]:
    """The port of PostgreSQL, which somebody has."""
    port = int(stack.settings["ports"]["postgres"])
    with socket.create_server((LOOPBACK, port)):
        yield port


def test_all_of_it_comes_back_and_a_second_backup_adds_what_is_new(
    stack: Stack, tmp_path: Path, loaded: dict[str, bytes]
) -> None:
    first = keep.backup(stack, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    (stack.folder / "mlflow/2").write_bytes(b"new")
    again = keep.backup(stack, tmp_path / "backup")
    assert (again["new_bytes"], again["bytes"] - first["bytes"]) == (3, 3)
    other = Stack(tmp_path / "other")
    assert keep.restore(other, tmp_path / "backup")["notes"] == []
    assert {name: (other.folder / name).read_bytes() for name in FILES} == FILES
    assert (other.folder / "mlflow/2").read_bytes() == b"new"
    assert loaded == {name: f"dump of {name}".encode() for name in DATABASES}
    assert other.settings == stack.settings
    assert (other.folder / "settings.json").stat().st_mode & 0o077 == 0


def test_other_ports_are_taken_where_those_of_before_are_in_use(stack: Stack, busy: int, tmp_path: Path) -> None:
    keep.backup(stack, tmp_path / "backup")
    other = Stack(tmp_path / "other")
    assert keep.restore(other, tmp_path / "backup")["notes"] == ["other ports than before, for those are in use here: postgres"]
    assert other.settings["ports"]["postgres"] != busy
    assert other.settings["passwords"] == stack.settings["passwords"]


def test_what_cannot_serve_is_refused(stack: Stack, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no servers of ours, there is no settings\.json"):
        keep.backup(Stack(tmp_path / "none"), tmp_path / "backup")
    done = keep.backup(stack, tmp_path / "backup")
    before = json.loads((stack.folder / "settings.json").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match="it is not empty, and nothing there is written over"):
        keep.restore(stack, tmp_path / "backup")
    assert json.loads((stack.folder / "settings.json").read_text(encoding="utf-8")) == before
    sha256 = json.loads(Path(done["manifest"]).read_text(encoding="utf-8"))["mlflow"]["1/model/weights"]["sha256"]
    (tmp_path / "backup/objects" / sha256[:2] / sha256[2:]).write_bytes(b"1234x")
    with pytest.raises(UserError, match="the backup is damaged, so nothing was restored"):
        keep.restore(Stack(tmp_path / "other"), tmp_path / "backup")
    assert not (tmp_path / "other").exists()
