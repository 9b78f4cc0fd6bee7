"""The objects of DVC's cache: files by the md5 of their bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.files import parse_json
from tasks.running.dvc import cache_folder, fetch_objects

FOLDER: Final = ".dir"  # ends the name of the listing of a folder
OBJECT: Final = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")


def md5(content: bytes) -> str:
    """Return DVC's name of a file's content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def object_path(cache: Path, name: str) -> Path:
    """Return where DVC 3 keeps the object with this md5, also below another folder that stands for a cache."""
    return cache / "files" / "md5" / name[:2] / name[2:]


@dataclass(frozen=True)
class Objects:
    """The bytes that a workspace can have: those of its cache, its own files, and what it can fetch."""

    workspace: Path
    cache: Path

    def find(self, name: str | None, path: str) -> Path | None:
        """Return a file with this md5: the cache's, or the workspace's at `path`; None where neither is whole."""
        for place in (object_path(self.cache, name), self.workspace / path) if name else ():
            if place.is_file() and md5_of(place) == name:
                return place
        return None

    def fetch(self, names: Iterable[str]) -> str:
        """Bring objects from the DVC remote into the cache, those that it has; return why it could not be asked."""
        return fetch_objects(self.workspace, names)


def names_here(cache: Path) -> dict[str, int]:
    """Return md5 -> bytes of every object in a cache."""
    places = (path for path in (cache / "files" / "md5").glob("??/*") if OBJECT.fullmatch(path.parent.name + path.name))
    return {path.parent.name + path.name: path.stat().st_size for path in places}


def with_files(cache: Path, names: Iterable[str]) -> set[str]:
    """Return objects and the files of those that are listings of folders, as far as the listings are here."""
    found = set(names)
    for name in [name for name in found if name.endswith(FOLDER)]:
        with suppress(OSError, ValueError, KeyError, TypeError):  # one that is gone, or damaged, names nothing
            found |= {str(entry["md5"]) for entry in parse_json(object_path(cache, name).read_bytes())}
    return found


def names_in(text: str) -> set[str]:
    """Return all that may be an object in dvc.lock, a `.dvc` file or a receipt: rather too much than too little."""
    return {match[0] for match in OBJECT.finditer(text)}


def outputs_in(lock: str) -> dict[str, str]:
    """Return path -> md5 of the outputs in the text of a dvc.lock, or of an entry of the run cache; DVC writes a fact a line."""
    found: dict[str, str] = {}
    section, path, md5 = "", "", ""
    for line in lock.splitlines():
        words = line.strip()
        key, _, value = words.removeprefix("- ").partition(":")
        if not words.startswith("-") and len(line) - len(words) in (0, 4):
            section = key
        if words.startswith("- "):
            path, md5 = "", ""
        if section == "outs" and key in ("path", "md5"):
            path, md5 = (_plain(value), md5) if key == "path" else (path, _plain(value))
            if path and md5:
                found[path] = md5
    return found


def _plain(value: str) -> str:
    """Return a word of YAML without its quotes."""
    return value.strip().strip("'\"")


def objects_of(workspace: Path) -> Objects:
    """Return the objects of a workspace, with its cache wherever the configuration puts it."""
    return Objects(workspace, cache_folder(workspace))


def md5_of(path: Path) -> str:
    """Return the md5 of a file's bytes, which may be more than memory holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
