"""The records of runs of all clones, brought together at the Git remote that `promotion.remote` names.

Each clone numbers its own. Of two records with one number the one that was at the remote first keeps it, and the other one
gets the next that is free: none is lost, and none is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tasks.git import create_ref, fetch_objects, git, push_new, read_blobs, refs_at, refs_of
from tasks.registry.runs import REFS, number_of

ATTEMPTS: Final = 10


def share_runs(workspace: Path, remote: str) -> str:
    """Bring the records here and at a remote to the same; return why that did not go, empty when it did."""
    refused = ""
    for _ in range(ATTEMPTS):
        try:
            theirs, mine = refs_at(workspace, remote, REFS), refs_of(workspace, REFS)
            new = {name: blob for name, blob in theirs.items() if mine.get(name) != blob}
            if new:
                fetch_objects(workspace, remote, list(new))
        except OSError as error:
            return f"{remote} cannot be reached: {error}"
        _make_room(workspace, mine, theirs)
        for name, blob in new.items():  # the old value: only if nobody here has changed it meanwhile
            git(workspace, "update-ref", name, blob, mine.get(name, ""))
        own = {name: blob for name, blob in refs_of(workspace, REFS).items() if name not in theirs}
        refused = push_new(workspace, remote, own) if own else ""
        if not refused:
            return ""
    return f"{remote} does not take them: {refused}"


def _make_room(workspace: Path, mine: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    """Give records of ours whose number is another's at the remote the next ones that are free."""
    clashing = {name: blob for name, blob in mine.items() if theirs.get(name, blob) != blob and blob not in theirs.values()}
    number = max(map(number_of, (*mine, *theirs)), default=0)
    for content in read_blobs(workspace, clashing).values():
        number += 1
        while not create_ref(workspace, f"{REFS}/{number:08d}", content.decode()):
            number += 1
