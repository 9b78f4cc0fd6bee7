"""Which objects of DVC's cache are named by something: commits, the working tree, records of runs, receipts in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.git import blobs_at_tips, blobs_named, read_blobs
from tasks.running.objects import md5, names_in

LOCK: Final = "dvc.lock"
NAMING: Final = (LOCK, "?*.dvc")  # files in which DVC names objects


def texts_in_git(workspace: Path, *, tips: bool = False) -> list[str]:
    """Return what these files say in all commits that a ref leads to, or only where refs point; UserError for a broken one."""
    blobs = {f"{path} ({blob})": blob for blob, path in (blobs_at_tips if tips else blobs_named)(workspace, NAMING).items()}
    contents = read_blobs(workspace, blobs)
    for name, content in contents.items():
        if not content and blobs[name] != EMPTY:
            raise UserError(f"{workspace}: Git cannot read {name}, so nobody knows which files it names; `git fsck` says more")
    return [content.decode(errors="replace") for content in contents.values()]


EMPTY: Final = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # Git's name of a file without content


def texts_here(workspace: Path) -> list[str]:
    """Return what these files say in the working tree; of those below a folder of its own, such as .venv, nothing."""
    places = [workspace / LOCK, *workspace.glob("?*.dvc"), *workspace.glob("[!.]*/**/?*.dvc")]
    return [path.read_text(encoding="utf-8", errors="replace") for path in places if path.is_file()]


def names_of(texts: Iterable[str]) -> set[str]:
    """Return all that may be an object in these texts."""
    return set[str]().union(*(names_in(text) for text in texts))


def names_of_receipts(receipts: Iterable[bytes]) -> set[str]:
    """Return the objects that receipts name, and those that they are themselves."""
    found: set[str] = set()
    for content in receipts:
        found |= {md5(content), *names_in(content.decode(errors="replace"))}
    return found


def texts_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what dvc.lock said at the end of each recorded run."""
    return [str(record["dvc_lock"]) for record in records]
