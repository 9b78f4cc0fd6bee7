"""The objects of DVC's cache: files by the md5 of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks.running.dvc import cache_folder, fetch_objects


def md5(content: bytes) -> str:
    """Return DVC's name of a file's content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def object_path(cache: Path, name: str) -> Path:
    """Return where DVC 3 keeps the object with this md5."""
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


def objects_of(workspace: Path) -> Objects:
    """Return the objects of a workspace, with its cache wherever the configuration puts it."""
    return Objects(workspace, cache_folder(workspace))


def md5_of(path: Path) -> str:
    """Return the md5 of a file's bytes, which may be more than memory holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
