"""Copies of files that another machine keeps: they are there whole or not at all, whoever is killed or downloads beside us."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tasks.files import digest, read_json, write_json

LOADED_AS: Final = "registered_model_meta"  # its own note of what was loaded, which nobody stored


def whole_folder(folder: Path, sha256: str | None, fetch: Callable[[Path], object]) -> Path:
    """Return `folder` with the files that `fetch` puts into a folder; a copy that is there whole is not fetched again.

    `sha256` is the digest of the folder as it was stored; without it a copy is whole as long as it is what the download was. A
    store that sends other bytes than it was given is asked each time: what they are is for others to judge.
    """
    if is_whole(folder, sha256):
        return folder
    note = _note_of(folder)
    with _one_at_a_time(folder.parent):
        if is_whole(folder, sha256):
            return folder
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            fetch(fresh)
            note.unlink(missing_ok=True)
            if folder.exists():
                folder.rename(Path(scratch) / "former")
            fresh.rename(folder)
        write_json(note, {"sha256": _digest(folder)})
        return folder


def whole_file(place: Path, fetch: Callable[[Path], object]) -> Path:
    """Return `place`, a file or folder, as `fetch` has just downloaded it: below a folder that it is given, it returns where."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=place.parent) as scratch:
        fresh = Path(str(fetch(Path(scratch))))
        if fresh.is_dir():
            shutil.copytree(fresh, place, dirs_exist_ok=True, copy_function=_replace)
        else:
            fresh.replace(place)
    return place


def _replace(source: str, target: str) -> None:
    Path(source).replace(target)


def is_whole(folder: Path, sha256: str | None) -> bool:
    """Return whether a copy is there whole: it has the digest with which it was stored, or without one that of its download."""
    note = _note_of(folder)
    if not folder.is_dir() or not (sha256 or note.is_file()):
        return False
    return _digest(folder) == (sha256 or read_json(note)["sha256"])


def _note_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _digest(folder: Path) -> str:
    return str(digest(folder, (LOADED_AS,))["sha256"])


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
