"""Makes MLflow's index again from Git and DVC: runs, versions with their numbers, metrics, models, aliases.

What ran stands in the records of runs (tasks/registry/runs.py), else in commits that have a dvc.lock, else in the workspace's;
the files come from the DVC cache by their digests, the champion from the log of decisions. Nothing is trained or measured.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.lineage.former import bring
from tasks.lineage.git import commits_of, snapshot
from tasks.lineage.pipeline import cache_folder, stage_digests
from tasks.params import AnyParams
from tasks.params_file import read_yaml
from tasks.params_recorded import recorded_params
from tasks.registry.live import record_receipts
from tasks.registry.publish import Publication, inputs_digest
from tasks.registry.records import TEACHER, RoundFiles
from tasks.registry.tracking import Tracker

LOCK: Final = "dvc.lock"


@dataclass(frozen=True)
class FormerRun:
    """A run to record again: where it stands, its model's name, params, and files below `root` (dvc.lock among them)."""

    where: str
    params: AnyParams
    inputs: str
    facts: Mapping[str, str]
    outcomes: Mapping[str, str]
    stages: Sequence[str]
    root: Path

    @property
    def model(self) -> str:
        """Return the name of the registered model."""
        return self.params.registry.model_name


def recorded_run(record: Mapping[str, Any], root: Path) -> FormerRun:
    """Return a run from its record in Git; ValidationError when its params are not of this version of the program."""
    params = recorded_params(record["params"])
    _write(root / LOCK, record["dvc_lock"].encode())
    return FormerRun(record["ref"], params, record["inputs_digest"], record["facts"], record["outcomes"],
                     record["stages"], root)  # fmt: skip


def committed_runs(workspace: Path, known: set[str], scratch: Path) -> list[FormerRun]:
    """Return the runs of commits that have a dvc.lock which is not among `known`, and of the workspace, oldest first."""
    found = []
    for commit in commits_of(workspace, LOCK):
        state = snapshot(workspace, commit, None, scratch)
        files = state.read([LOCK, "params.yaml", "sources.lock", "dvc.yaml"]) if state else {}
        text = files.get(LOCK, b"").decode()
        if state is None or not text or text in known or "params.yaml" not in files:
            continue
        known.add(text)
        root = Path(tempfile.mkdtemp(dir=scratch))
        for path, content in {**files, **state.read(state.below("tasks"))}.items():
            _write(root / path, content)
        found.append(_found_run(f"commit {commit[:12]}", root, {"git_commit": commit}))
    place = workspace / LOCK
    if place.exists() and place.read_text(encoding="utf-8") not in known:
        root = Path(tempfile.mkdtemp(dir=scratch))
        for name in (LOCK, "params.yaml", "sources.lock", "dvc.yaml"):
            if (workspace / name).exists():
                shutil.copyfile(workspace / name, root / name)
        shutil.copytree(workspace / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
        found.append(_found_run("the workspace", root, {}))
    return [run for run in found if run is not None]


def _found_run(where: str, root: Path, facts: Mapping[str, str]) -> FormerRun | None:
    """Return the run of a folder with dvc.lock, params.yaml and code; None when its params are of another version."""
    try:
        params = recorded_params(read_yaml(root / "params.yaml"))
    except ValidationError:
        return None
    entries = read_yaml(root / LOCK).get("stages", {})
    paths = {str(dep["path"]) for entry in entries.values() for dep in entry.get("deps", [])}
    code = sorted(path for path in paths if path.startswith("tasks/"))
    return FormerRun(where, params, inputs_digest(root, params, code), facts, {}, list(entries), root)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def weights_of(run: FormerRun) -> set[str]:
    """Return the sha256 of the weights of a run's rounds, of those whose evaluation was found."""
    files = [RoundFiles(run.root, name) for name in run.params.rounds]
    return {one.model_sha256() for one in files if one.is_evaluated}


def find_files(workspace: Path, run: FormerRun) -> dict[str, list[str]]:
    """Bring a run's files below its root and return stage -> those that are nowhere."""
    return bring(read_yaml(run.root / LOCK), run.stages, cache_folder(workspace), workspace, run.root)


def record_again(
    workspace: Path, run: FormerRun, missing: Mapping[str, Sequence[str]], numbers: Mapping[str, str], say: Callable[[str], None]
) -> None:  # fmt: skip
    """Record a former run whose files were brought; rounds of which a file is missing are left out."""
    digests = {stage: digest for stage, digest in stage_digests(run.root).items() if stage in run.stages}
    teacher = RoundFiles(run.root, TEACHER)
    whole = not any(stage in missing for stage in teacher.stages)
    for name in run.params.rounds:
        stages = RoundFiles(run.root, name).stages
        if not whole or any(stage in missing for stage in stages):
            digests = {stage: digest for stage, digest in digests.items() if stage not in stages}
    if not whole:
        digests = {stage: digest for stage, digest in digests.items() if stage not in teacher.stages}
    say(f"recording {run.where} of {run.model}")
    tracker = Tracker(workspace, run.model)
    publication = Publication(tracker, run.params, run.inputs, run.facts, run.root, numbers)
    publication.finish(digests, run.outcomes, decide=False)
    record_receipts(tracker, publication.parent(), run.root, run.stages)


def lost_versions(workspace: Path, model: str, numbers: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the versions that are known and could not be made again, or only under another number; theirs stay free."""
    tracker = Tracker(workspace)
    here = tracker.numbers(model)
    last = max((int(number) for number in numbers.values()), default=0)
    if here and last > max(int(number) for number in here.values()):
        tracker.leave_free(model, last)
    lost = [
        {"model": model, "version": number, "model_sha256": sha256,
         "why": f"is version {here[sha256]} now" if sha256 in here else "its files are neither in the DVC cache nor in the "
                "workspace, or nothing says which they are; `dvc fetch --all-commits` may have them"}
        for sha256, number in numbers.items() if here.get(sha256) != number
    ]  # fmt: skip
    return sorted(lost, key=lambda one: int(one["version"]))
