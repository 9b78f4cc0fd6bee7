"""Backup and restore of a team's servers: their databases by PostgreSQL's own programs, their bytes, and the stack's settings.

`python -m infra.stack FOLDER backup DEST` works while the servers run, or starts PostgreSQL alone for as long as it takes;
`python -m infra.stack FOLDER restore DEST` fills a new folder, which `python -m infra.stack FOLDER` then starts. A backup holds
passwords: DEST is for its owner alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

from infra.cluster import DATABASES, OWNER, postgres_program
from infra.mlflow_server import write_private
from infra.stack import Stack
from tasks.children import LOOPBACK, free_port
from tasks.errors import ResourceError, UserError
from tasks.running.vault import Kept, Vault, described, files_in, followed, former, shortened

KIND: Final = "team"
SETTINGS: Final = "settings.json"
KINDS: Final = ("mlflow", "dvc")  # of bytes, by what keeps them
SOFTWARE: Final = ("mlflow", "prefect")


class Bytes(Protocol):
    """Where files of one kind are kept."""

    def names(self) -> dict[str, tuple[int, int]]:
        """Return name -> size, and when it was written in nanoseconds."""

    def fetch(self, name: str, scratch: Path, /) -> Path:
        """Return a local file with the bytes of one."""

    def store(self, name: str, content: Path) -> None:
        """Keep bytes under a name."""


@dataclass(frozen=True)
class Folder:
    """Files below a folder of this machine."""

    place: Path

    def names(self) -> dict[str, tuple[int, int]]:
        facts = {path: path.stat() for path in self.place.rglob("*") if path.is_file()}
        return {path.relative_to(self.place).as_posix(): (fact.st_size, fact.st_mtime_ns) for path, fact in facts.items()}

    def fetch(self, name: str, _: Path, /) -> Path:
        return self.place / name

    def store(self, name: str, content: Path) -> None:
        (self.place / name).parent.mkdir(parents=True, exist_ok=True)
        partial = self.place / f"{name}.partial"
        shutil.copyfile(content, partial)
        partial.replace(self.place / name)


@dataclass
class Bucket:
    """Objects of an S3 bucket below a prefix."""

    address: str
    storage: Mapping[str, str]  # the environment of whoever asks, where it is not ours

    @cached_property
    def _client(self) -> Any:
        import boto3

        own = {**os.environ, **self.storage}
        return boto3.client(
            "s3",
            endpoint_url=own.get("MLFLOW_S3_ENDPOINT_URL") or own.get("AWS_ENDPOINT_URL"),
            aws_access_key_id=own.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=own.get("AWS_SECRET_ACCESS_KEY"),
            region_name=own.get("AWS_DEFAULT_REGION"),
        )

    @property
    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/"

    def names(self) -> dict[str, tuple[int, int]]:
        bucket, prefix = self._place
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        objects = [entry for page in pages for entry in page.get("Contents", ())]
        return {
            entry["Key"].removeprefix(prefix): (entry["Size"], int(entry["LastModified"].timestamp() * 1e9)) for entry in objects
        }

    def fetch(self, name: str, scratch: Path, /) -> Path:
        bucket, prefix = self._place
        self._client.download_file(bucket, prefix + name, str(scratch / "object"))
        return scratch / "object"

    def store(self, name: str, content: Path) -> None:
        bucket, prefix = self._place
        self._client.upload_file(str(content), bucket, prefix + name)


def bytes_of(stack: Stack, kind: str) -> Bytes:
    """Return where a stack keeps files of a kind."""
    place = stack.place(kind)
    return Bucket(place, stack.storage) if place.startswith("s3://") else Folder(Path(place))


def backup(stack: Stack, dest: Path) -> dict[str, Any]:
    """Return what was written: manifest, files, bytes and how many of these are new. Whoever works meanwhile goes on.

    The databases come first: what they name is among the bytes that are copied after them.
    """
    began = time.monotonic()
    if not (stack.folder / SETTINGS).is_file():
        raise UserError(f"{stack.folder}: no servers of ours, there is no {SETTINGS}; `python -m infra.stack FOLDER` makes some")
    dest.mkdir(parents=True, exist_ok=True)
    dest.chmod(0o700)
    vault = Vault(dest)
    files = {SETTINGS: vault.put(stack.folder / SETTINGS)}
    with tempfile.TemporaryDirectory(prefix=".dumps-", dir=dest) as name, _postgres(stack):
        for database in DATABASES:
            dump = Path(name) / database
            _postgres_does(stack, "pg_dump", "--format=custom", f"--file={dump}", database)
            files[f"{database}.dump"] = vault.put(dump)
    kept = {kind: _keep(vault, bytes_of(stack, kind), kind) for kind in KINDS}
    software = {name: version(name) for name in SOFTWARE} | {"postgres": _postgres_version()}
    content = {"kind": KIND, "software": software, "files": described(files)} | {
        kind: described(entries) for kind, entries in kept.items()
    }
    manifest = vault.seal(content)
    every = [*files.values(), *(entry for entries in kept.values() for entry in entries.values())]
    return {
        "manifest": str(manifest),
        "files": len(every),
        "bytes": sum(entry.size_bytes for entry in every),
        "new_bytes": vault.copied_bytes,
        "seconds": round(time.monotonic() - began, 2),
    }


def _keep(vault: Vault, source: Bytes, kind: str) -> dict[str, Kept]:
    """Keep all files of a kind; those that are as they were in the backup before are not fetched again."""
    before, found = former(vault, KIND, kind), source.names()
    kept = {}
    vault.require_room(max(0, sum(size for size, _ in found.values()) - sum(entry.size_bytes for entry in before.values())))
    with tempfile.TemporaryDirectory(prefix=".bytes-", dir=vault.folder) as scratch:
        for name in followed(sorted(found), f"backup of {kind}"):
            size, written = found[name]
            known = before.get(name)
            if known is None or (known.size_bytes, known.mtime_ns) != (size, written) or not vault.path(known.sha256).is_file():
                fresh = vault.put(source.fetch(name, Path(scratch)))
                known = Kept(fresh.sha256, fresh.size_bytes, 0o644, written)
            kept[name] = known
    return kept


def restore(stack: Stack, dest: Path, at: str | None = None) -> dict[str, Any]:
    """Return what was restored into a new folder: settings, databases and bytes; the stack is not started.

    UserError where the backup is damaged, or the folder or the bucket holds something already.
    """
    began = time.monotonic()
    vault = Vault(dest)
    manifest = vault.read(KIND, at)
    files, kept = files_in(manifest, "files"), {kind: files_in(manifest, kind) for kind in KINDS}
    vault.require_whole([*files.values(), *(entry for entries in kept.values() for entry in entries.values())])
    if stack.folder.exists() and any(stack.folder.iterdir()):
        raise UserError(f"{stack.folder}: it is not empty, and nothing there is written over; name a new folder")
    stack.folder.mkdir(parents=True, exist_ok=True)
    notes = _bring_settings(vault.path(files[SETTINGS].sha256), stack.folder / SETTINGS)
    targets = {kind: bytes_of(stack, kind) for kind in KINDS}
    if there := [f"{kind}/{name}" for kind, target in targets.items() for name in target.names()]:
        (stack.folder / SETTINGS).unlink()
        raise UserError(f"{stack.bytes_at}: it holds {shortened(there)}, and nothing there is written over; name an empty bucket")
    stack.prepare()
    with _own_postgres(stack):
        stack.make_databases()
        for database in DATABASES:
            dump = str(vault.path(files[f"{database}.dump"].sha256))
            _postgres_does(stack, "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={database}", dump)
    for kind, target in targets.items():
        for name in followed(sorted(kept[kind]), f"restore of {kind}"):
            target.store(name, vault.path(kept[kind][name].sha256))
    now = {name: version(name) for name in SOFTWARE}
    others = [f"{name} {was}, here {now[name]}" for name, was in manifest["software"].items() if now.get(name, was) != was]
    return {
        "folder": str(stack.folder),
        "backup": manifest["made_at"],
        "files": sum(map(len, kept.values())),
        "notes": [*notes, *([f"the backup was made with other versions: {', '.join(others)}"] if others else [])],
        "seconds": round(time.monotonic() - began, 2),
    }


def _bring_settings(content: Path, place: Path) -> list[str]:
    """Write the settings, with other ports for those that somebody has here; return a note on these."""
    settings = json.loads(content.read_text(encoding="utf-8"))
    taken = {name: free_port() for name, port in settings["ports"].items() if _is_taken(port)}
    settings["ports"] |= taken
    write_private(place, json.dumps(settings))
    return [f"other ports than before, for those are in use here: {', '.join(taken)}"] if taken else []


def _is_taken(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def _postgres(stack: Stack) -> Iterator[None]:
    """Have PostgreSQL run: as it does already, or for as long as it is needed."""
    if _is_taken(stack.settings["ports"]["postgres"]):
        yield
        return
    with _own_postgres(stack):
        yield


@contextmanager
def _own_postgres(stack: Stack) -> Iterator[None]:
    """Run PostgreSQL of the stack alone."""
    stack.launch("postgres")
    try:
        stack.wait("postgres")
        yield
    finally:
        stack.stop("postgres")


def _postgres_does(stack: Stack, program: str, *words: str) -> None:
    where = ["-h", LOOPBACK, "-p", str(stack.settings["ports"]["postgres"]), "-U", OWNER]
    env = {**os.environ, "PGPASSWORD": stack.password("database")}
    done = subprocess.run([postgres_program(program), *where, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(f"{program} {words[-1]}: {done.stderr.strip()}; mend that, and call again")


def _postgres_version() -> str:
    said = subprocess.run([postgres_program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    return next(iter(re.findall(r"[0-9]+(?:\.[0-9]+)*", said)), said.strip())
