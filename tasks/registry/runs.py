"""The record of each published run, kept in Git: what `compactlm publish --rebuild` makes MLflow's index from.

The ref `refs/compactlm/runs/<number>` points at a blob with dvc.lock (so every file of the run can be found in the DVC cache),
params, what identifies the run, the Merkle root of its receipts, and the number of every version by the sha256 of its weights.
Git makes such a ref only where there is none; `git push origin 'refs/compactlm/*:refs/compactlm/*'` shares them, or a run itself
where params.yaml names a remote (tasks/registry/shared_runs.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.files import parse_object
from tasks.git import create_ref, has_git, read_blobs, refs_of
from tasks.registry.dropped import dropped_records, dropped_versions, read_dropped
from tasks.running.identity import workspace_id

REFS: Final = "refs/compactlm/runs"
ATTEMPTS: Final = 100
Run = dict[str, Any]
console = logging.getLogger("compactlm")


def read_runs(workspace: Path, model: str | None = None, *, every: bool = False) -> list[Run]:
    """Return the recorded runs, oldest first, of one model name or of all; none outside of Git.

    Their `versions` lack those that `compactlm gc` has taken away, and runs of which it took all are left out, unless `every`
    one is asked for. Raises UserError when one of them cannot be read any more.
    """
    refs = refs_of(workspace, REFS)
    dropped = read_dropped(workspace)
    records, versions = dropped_records(dropped), dropped_versions(dropped)
    runs = []
    for name, content in read_blobs(workspace, refs).items():
        try:
            run = {**parse_object(content), "ref": name}
        except ValueError:
            raise UserError(f"{name}: Git cannot read this record of a run any more; fetch it from a clone") from None
        if not every:
            kept = {sha: number for sha, number in run["versions"].items() if (run["model"], sha, number) not in versions}
            run["versions"] = kept
        if every or refs[name] not in records:
            runs.append(run)
    return [run for run in runs if model is None or run["model"] == model]


def record_run(workspace: Path, run: Mapping[str, Any]) -> bool:
    """Record a run unless the newest record of this workspace says the same; return whether one was made."""
    if not has_git(workspace):
        return False
    own = workspace_id(workspace)
    for _ in range(ATTEMPTS):
        known = read_runs(workspace)
        made_here = [old for old in known if old.get("workspace", own) == own]  # records of former versions do not say
        if made_here and _lasting(made_here[-1]) == _lasting(run):
            return False
        number = max(map(number_of, refs_of(workspace, REFS)), default=0) + 1
        if create_ref(workspace, f"{REFS}/{number:08d}", json.dumps({**run, "workspace": own}, sort_keys=True)):
            return True
    console.warning("the run is not recorded below %s: Git makes no ref there", REFS)
    return False


def number_of(ref: str) -> int:
    """Return the number in the name of a record."""
    return int(ref.rpartition("/")[2])


def _lasting(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says besides where, and how this run brought its stages up to date."""
    whole = json.loads(json.dumps(run))
    return {key: value for key, value in whole.items() if key not in ("outcomes", "facts", "ref", "workspace")}


def numbers(runs: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]], model: str) -> dict[str, str]:
    """Return sha256 of the weights -> version number of a model by the records of runs, and by the log of decisions."""
    known: dict[str, str] = {}
    for entry in log:
        for version in (entry["candidate"], entry["champion"], entry["previous"]):
            if version is not None and entry["model"] == model:
                known[version["model_sha256"]] = str(version["version"])
    for run in runs:
        known |= run["versions"] if run["model"] == model else {}
    return known
