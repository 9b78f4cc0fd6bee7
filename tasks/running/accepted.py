"""Whether new data is still what the pipeline was accepted for: that of the last result which is committed in Git.

A result is accepted by being committed: by a person, or by a scheduled run that went well. What a run has found and refused is in
no commit, so it is compared with the same data again next time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.data.profile import Limits, Profile, changes
from tasks.errors import DataError
from tasks.files import read_json
from tasks.git import git
from tasks.params.base import Params
from tasks.params.file import parse_yaml, read_yaml
from tasks.params.parts import Drift
from tasks.running.objects import Objects, object_path, objects_of

STAGE: Final = "validate_data"
BEFORE: Final = "prepare"  # the first stage that works with what was checked
FOLDER: Final = "artifacts/validation"
FILE: Final = "profile.json"
console = logging.getLogger("compactlm")


def refuse_drift(workspace: Path, params: Params) -> None:
    """Raise DataError where the checked data differs from the accepted data by more than `validate_data.drift` allows.

    Nothing is compared without limits, before a first result, after a change of `data` in params.yaml, which is a decision for
    other data, and where the accepted profile is nowhere any more, which is told.
    """
    place = workspace / FOLDER / FILE
    if params.drift is None or not place.exists():
        return
    entry = _accepted_entry(workspace)
    if entry is None or entry["params"]["params.yaml"].get("data") != read_yaml(workspace / "params.yaml").get("data"):
        return
    before = _profile(workspace, entry)
    if before is None:
        console.warning("validate_data.drift: the profile of the accepted data is not at hand, so nothing was compared with it")
        return
    after: Profile = read_json(place)
    if broken := changes(before, after, _limits(params.drift)):
        raise DataError(
            "\n".join(
                [
                    "the data is not like that of the last result in Git (validate_data.drift); nothing was trained:",
                    *broken,
                    "if it should be so: `compactlm run --accept-data`, or `compactlm schedules --trigger NAME --accept-data`",
                ]
            )
        )
    console.info("validate_data: the data is like that of the last result in Git")


def _limits(drift: Drift) -> Limits:
    return {
        "label_share": drift.label_share,
        "length": drift.length,
        "rows_lost": drift.rows_lost,
        "divergence": drift.divergence,
    }


def _accepted_entry(workspace: Path) -> Mapping[str, Any] | None:
    """Return what the committed dvc.lock says of the stage that checks data; None where there is none."""
    done = git(workspace, "show", "HEAD:./dvc.lock")
    if done.returncode:
        return None
    entry = (parse_yaml(done.stdout.decode(errors="replace"), "dvc.lock") or {}).get("stages", {}).get(STAGE)
    return entry if isinstance(entry, Mapping) and "params.yaml" in entry.get("params", {}) else None


def _profile(workspace: Path, entry: Mapping[str, Any]) -> Profile | None:
    """Return the profile that a stage of dvc.lock wrote, from DVC's cache or its remote."""
    folder = next((out for out in entry.get("outs", ()) if out["path"] == FOLDER), None)
    objects = objects_of(workspace)
    listing = _object(objects, str(folder["md5"])) if folder else None
    name = next((file["md5"] for file in json.loads(listing or "[]") if file["relpath"] == FILE), None)
    content = _object(objects, str(name)) if name else None
    return json.loads(content) if content else None


def _object(objects: Objects, name: str) -> bytes | None:
    """Return the bytes of an object of DVC's, by its name in dvc.lock."""
    place = object_path(objects.cache, name)
    if not place.exists():
        objects.fetch([name])
    return place.read_bytes() if place.exists() else None
