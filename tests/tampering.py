"""Ways to change a finished project behind everybody's back, each undone at the end of a `with` statement."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

STORE = Path(".compactlm/mlflow/mlflow.db")


@contextlib.contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """Give a file other content, its time stamps (and access rights) kept."""
    before, facts = path.read_bytes(), path.stat()
    assert content != before
    try:
        _write(path, content, facts)
        yield
    finally:
        _write(path, before, facts)


def _write(path: Path, content: bytes, facts: os.stat_result) -> None:
    path.chmod(0o644)  # DVC makes the objects of its cache read-only
    path.write_bytes(content)
    path.chmod(facts.st_mode)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def one_byte(path: Path) -> contextlib.AbstractContextManager[None]:
    """Flip one bit of the byte in the middle of a file; size and time stamps stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return changed(path, bytes(content))


def replaced(path: Path, old: str, new: str) -> contextlib.AbstractContextManager[None]:
    """Replace the first occurrence of a text by one of the same length; size and time stamps stay."""
    text = path.read_bytes()
    assert len(old) == len(new)
    assert old.encode() in text
    return changed(path, text.replace(old.encode(), new.encode(), 1))


@contextlib.contextmanager
def other_ref(project: Path, name: str, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Let a Git ref point at a changed copy of its blob."""

    def git(*arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(["git", *arguments], cwd=project, input=given, capture_output=True, check=True).stdout

    before = git("rev-parse", name).decode().strip()
    content = git("cat-file", "blob", before)
    assert change(content) != content
    git("update-ref", name, git("hash-object", "-w", "--stdin", given=change(content)).decode().strip())
    try:
        yield
    finally:
        git("update-ref", name, before)


@contextlib.contextmanager
def moved_away(path: Path) -> Iterator[None]:
    """Take a file or a folder away for a while."""
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(shutil.move(path, folder))
        try:
            yield
        finally:
            shutil.move(aside, path)


@contextlib.contextmanager
def in_store(project: Path, command: str, undo: str) -> Iterator[None]:
    """Change the MLflow database with one SQL command; it must change something."""
    try:
        _execute(project, command)
        yield
    finally:
        _execute(project, undo)


def _execute(project: Path, command: str) -> None:
    with contextlib.closing(sqlite3.connect(project / STORE)) as connection:
        assert connection.execute(command).rowcount > 0
        connection.commit()
