"""A name for a workspace that no other has, where many meet: on a Prefect server that a team shares."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Final

PLACE: Final = Path(".compactlm") / "workspace.json"
ID: Final = re.compile(r"[0-9a-f]{8}")


def workspace_id(workspace: Path) -> str:
    """Return eight hex digits that stand for this workspace, made on first need: the same until the folder goes.

    A folder that is moved keeps them, on one disk; a copy is another workspace and gets its own. The file tells which it is: it
    says its own inode number, and a copy of it has another one.
    """
    place = workspace / PLACE
    if known := _read(place):
        return known
    place.parent.mkdir(exist_ok=True)
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # of two that want one at once the second finds that of the first
        return _read(place) or _make(place)
    finally:
        os.close(folder)


def known_id(workspace: Path) -> str | None:
    """Return the id of this workspace, None as long as it has none."""
    return _read(workspace / PLACE)


def take_id(workspace: Path, known: str) -> None:
    """Let this workspace be the one that had this id: it was restored from that one's backup."""
    (workspace / PLACE).parent.mkdir(exist_ok=True)
    _make(workspace / PLACE, known)


def _make(place: Path, known: str = "") -> str:
    made = known or secrets.token_hex(4)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=place.parent, delete=False) as file:
        json.dump({"id": made, "inode": os.fstat(file.fileno()).st_ino}, file)
    Path(file.name).replace(place)
    return made


def _read(place: Path) -> str | None:
    """Return the id that a file holds; None where there is none, or it is a copy of another workspace's."""
    try:
        with place.open(encoding="utf-8") as file:
            content, inode = json.load(file), place.stat().st_ino
    except (FileNotFoundError, ValueError):
        return None
    known = str(content.get("id")) if isinstance(content, dict) and content.get("inode") == inode else ""
    return known if ID.fullmatch(known) else None
