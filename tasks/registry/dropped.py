"""What `compactlm gc` has taken away, on record in Git: versions that are gone on purpose are no fault and are not made again.

The ref `refs/compactlm/dropped/<number>` points at a blob that says what, when and by whom. It is made before anything is
removed, so that a removal which was cut short is finished by the next one. Records of runs stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from tasks.errors import ResourceError, UserError
from tasks.files import parse_object
from tasks.git import create_ref, read_refs, refs_of

REFS: Final = "refs/compactlm/dropped"
ATTEMPTS: Final = 100


class DroppedVersion(TypedDict):
    """A registered version that was taken away."""

    model: str
    version: str
    model_sha256: str
    round: str


class Dropped(TypedDict):
    """What one call took away: versions, MLflow's ids of runs and logged models, and the Git blobs of records of runs."""

    at: str
    actor: str
    keep: int
    versions: list[DroppedVersion]
    runs: list[str]
    models: list[str]
    records: list[str]


def read_dropped(workspace: Path) -> list[Dropped]:
    """Return what was taken away, oldest first; none outside of Git. UserError when a record cannot be read any more."""
    found = []
    for name, content in read_refs(workspace, REFS).items():
        try:
            entry: Any = parse_object(content)
            found.append(Dropped(**{key: entry[key] for key in Dropped.__annotations__}))  # type: ignore[typeddict-item]
        except (ValueError, KeyError):
            raise UserError(f"{name}: Git cannot read this record of what was taken away; fetch it from a backup") from None
    return found


def dropped_versions(dropped: Sequence[Dropped]) -> set[tuple[str, str, str]]:
    """Return (model, sha256 of the weights, number) of the versions that were taken away."""
    return {(entry["model"], entry["model_sha256"], entry["version"]) for one in dropped for entry in one["versions"]}


def dropped_records(dropped: Sequence[Dropped]) -> set[str]:
    """Return the blobs of the records of runs of which no version is left."""
    return {blob for one in dropped for blob in one["records"]}


def record_dropped(workspace: Path, entry: Dropped) -> None:
    """Put on record what is about to be taken away; ResourceError where Git does not take it."""
    for _ in range(ATTEMPTS):
        number = max((int(name.rpartition("/")[2]) for name in refs_of(workspace, REFS)), default=0) + 1
        if create_ref(workspace, f"{REFS}/{number:08d}", json.dumps(entry, sort_keys=True)):
            return
    raise ResourceError(
        f"{workspace}: nothing was removed: Git makes no ref below {REFS}; see whether its disk has room, and call again"
    )
