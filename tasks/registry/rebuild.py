"""Makes MLflow's index again from Git and DVC: runs, versions with their numbers, metrics, models, aliases.

What ran stands in the records of runs (tasks/registry/runs.py), else in commits that have a dvc.lock, else in the workspace's.
dvc.lock names the receipt of each stage by its md5, and the receipt names every file that the stage wrote: they come from the
DVC cache, or from a workspace that still has them; the champion from the log of decisions. Nothing is trained or measured.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.artifacts import BASELINES, REPORT, ROUNDS, SELECTION, SETS, TEACHER, VALIDATION, RoundPaths, receipt_path
from tasks.errors import UserError
from tasks.git import commits_of, has_git, snapshot
from tasks.lineage.chain import files_of
from tasks.params.base import Params
from tasks.params.file import read_yaml
from tasks.params.recorded import recorded_params
from tasks.registry.live import record_receipts
from tasks.registry.publish import Publication, inputs_digest
from tasks.registry.records import RANDOM_INIT, RoundFiles
from tasks.registry.runs import numbers, read_runs
from tasks.registry.tracking import Tracker
from tasks.running.dvc import cache_folder, md5, object_path, stage_digests
from tasks.running.start import only_run

LOCK: Final = "dvc.lock"
DECIDING: Final = (LOCK, "params.yaml", "sources.lock", "dvc.yaml")
# What an index needs of a run; the other files (checkpoints, tokens, logits) stay where they are.
NEEDED: Final = (
    *(SELECTION, REPORT, BASELINES, VALIDATION, f"{SETS}/*.parquet"),
    *(f"{ROUNDS}/*/trained/{name}" for name in ("model/*", "summary.json", "steps.jsonl", "search.json")),
    *(f"{ROUNDS}/*/exported/{name}" for name in ("model.onnx", "parity.json")),
    *(f"{ROUNDS}/*/{name}" for name in ("evaluated/*", "verdict.json", "pruned/plan.json", f"{RANDOM_INIT}/quality.json")),
)
LOST: Final = (
    "its files are neither in the DVC cache nor in the workspace, or nothing says which they are; "
    "`dvc fetch --all-commits` may have them"
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Decided:
    """What is known of decisions: the log of a project, and how aliases are brought to it."""

    read_log: Callable[[Path], list[dict[str, Any]]]
    reconcile: Callable[[Tracker, str], object]


@dataclass(frozen=True)
class FormerRun:
    """A run to record again: where it stands, its model's name, params, and files below `root` (dvc.lock among them)."""

    where: str
    params: Params
    inputs: str
    facts: Mapping[str, str]
    outcomes: Mapping[str, str]
    stages: Sequence[str]
    root: Path

    @property
    def model(self) -> str:
        """Return the name of the registered model."""
        return self.params.registry.model_name

    def weights(self) -> set[str]:
        """Return the sha256 of the weights of its rounds, of those whose evaluation was found."""
        rounds = (RoundFiles(self.root, name) for name in self.params.rounds)
        return {files.model_sha256() for files in rounds if files.is_evaluated}

    def find_files(self, workspace: Path) -> dict[str, list[str]]:
        """Bring its files below `root` and return stage -> those that are nowhere."""
        return bring(read_yaml(self.root / LOCK), self.stages, cache_folder(workspace), workspace, self.root)

    def whole_stages(self, missing: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return stage -> digest of the stages to record: of a round of which a file is missing, none."""
        teacher = RoundPaths(self.root, TEACHER).stages
        lost = {stage for stage in missing if stage.startswith(f"{RANDOM_INIT}@")}
        for name in (TEACHER, *self.params.rounds):
            stages = RoundPaths(self.root, name).stages
            if not missing.keys().isdisjoint({*teacher, *stages}):
                lost.update(stages)
        return {stage: digest for stage, digest in stage_digests(self.root).items() if stage in {*self.stages} - lost}


def recorded_run(record: Mapping[str, Any], root: Path) -> FormerRun:
    """Return a run from its record in Git; ValidationError when its params are not of this version of the program."""
    params = recorded_params(record["params"])
    _write(root / LOCK, record["dvc_lock"].encode())
    inputs, facts, outcomes = (record[key] for key in ("inputs_digest", "facts", "outcomes"))
    return FormerRun(record["ref"], params, inputs, facts, outcomes, record["stages"], root)


def committed_runs(workspace: Path, known: set[str], scratch: Path) -> list[FormerRun]:
    """Return the runs of commits that have a dvc.lock which is not among `known`, and of the workspace, oldest first."""
    runs = []
    for commit in commits_of(workspace, LOCK):
        state = snapshot(workspace, commit, None, scratch)
        files = state.read([*DECIDING]) if state else {}
        text = files.get(LOCK, b"").decode()
        if state is None or not text or text in known or "params.yaml" not in files:
            continue
        known.add(text)
        root = Path(tempfile.mkdtemp(dir=scratch))
        for path, content in {**files, **state.read(state.below("tasks"))}.items():
            _write(root / path, content)
        runs.append(_run_of_folder(f"commit {commit[:12]}", root, {"git_commit": commit}))
    place = workspace / LOCK
    if place.exists() and place.read_text(encoding="utf-8") not in known:
        root = Path(tempfile.mkdtemp(dir=scratch))
        for name in DECIDING:
            if (workspace / name).exists():
                shutil.copyfile(workspace / name, root / name)
        shutil.copytree(workspace / "tasks", root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
        runs.append(_run_of_folder("the workspace", root, {}))
    return [run for run in runs if run is not None]


def _run_of_folder(where: str, root: Path, facts: Mapping[str, str]) -> FormerRun | None:
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


def bring(lock: Mapping[str, Any], stages: Sequence[str], cache: Path, workspace: Path, into: Path) -> dict[str, list[str]]:
    """Copy receipts and needed files of a run below `into`, each with the bytes of its md5; return stage -> what is missing."""
    missing: dict[str, list[str]] = {}
    for stage in stages:
        path = receipt_path(stage)
        outs = {out["path"]: out.get("md5") for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}
        receipt = _read(outs.get(path), path, cache, workspace)
        if receipt is None:
            missing[stage] = [path]
            continue
        wanted = {path: outs[path]}
        for name, facts in files_of(json.loads(receipt), "outputs").items():
            if any(fnmatchcase(name, pattern) for pattern in NEEDED):
                wanted[name] = facts.get("md5")
        for name, digest in wanted.items():
            content = _read(digest, name, cache, workspace)
            if content is None:
                missing.setdefault(stage, []).append(name)
            else:
                _write(into / name, content)
    return missing


def _read(digest: str | None, path: str, cache: Path, workspace: Path) -> bytes | None:
    """Return the bytes with this md5, None when they are nowhere whole."""
    for place in (object_path(cache, digest), workspace / path) if digest else ():
        if place.is_file() and md5(content := place.read_bytes()) == digest:
            return content
    return None


def record_again(workspace: Path, run: FormerRun, stages: Mapping[str, str], numbers: Mapping[str, str]) -> None:
    """Record a former run whose files were brought: `stages` are those to record, with their digests."""
    tracker = Tracker(workspace, run.model)
    publication = Publication(tracker, run.params, run.inputs, run.facts, run.root, numbers)
    publication.finish(stages, run.outcomes)
    record_receipts(tracker, publication.parent(), run.root, run.stages)


def lost_versions(workspace: Path, model: str, numbers: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the versions that are known and could not be made again, or only under another number; theirs stay free."""
    tracker = Tracker(workspace)
    here = tracker.numbers(model)
    last = max(map(int, numbers.values()), default=0)
    if here and last > max(map(int, here.values())):
        tracker.leave_free(model, last)
    lost = []
    for sha256, number in sorted(numbers.items(), key=lambda known: int(known[1])):
        if here.get(sha256) != number:
            why = f"is version {here[sha256]} now" if sha256 in here else LOST
            lost.append({"model": model, "version": number, "model_sha256": sha256, "why": why})
    return lost


def rebuild(workspace: Path, decided: Decided, say: Say = lambda _: None) -> dict[str, Any]:
    """Return the runs recorded again, the versions there are now, and those that could not be made again.

    Adds what is missing and changes no number. UserError when the store has versions of which Git knows nothing.
    """
    (workspace / ".compactlm").mkdir(exist_ok=True)
    with only_run(workspace), tempfile.TemporaryDirectory(prefix="rebuild-", dir=workspace / ".compactlm") as folder:
        scratch = Path(folder)
        log = decided.read_log(workspace) if has_git(workspace) else []
        records = read_runs(workspace)
        names = {record["model"] for record in records} | {entry["model"] for entry in log}
        known = {name: numbers(records, log, name) for name in names}
        _refuse_strangers(workspace, known, say)
        runs, faults = _recorded(records, scratch)
        done = []
        for run in [*committed_runs(workspace, {record["dvc_lock"] for record in records}, scratch), *runs]:
            say(f"looking for the files of {run.where}")
            missing = run.find_files(workspace)
            wanted = known.get(run.model, {})
            # Once runs are recorded, one that Git alone has was never published unless a record knows a version of it.
            if run in runs or not records or run.weights() & set(wanted):
                say(f"recording {run.where} of {run.model}")
                record_again(workspace, run, run.whole_stages(missing), wanted)
                done.append({"where": run.where, "model": run.model, "missing": missing})
            shutil.rmtree(run.root)
    names |= {run["model"] for run in done}
    lost = []
    for name in sorted(names):
        lost += lost_versions(workspace, name, known.get(name, {}))
        faults += _champion(workspace, name, decided) if log else []
    versions = [version for name in sorted(names) for version in list_versions(workspace, name)]
    return {"runs": done, "versions": versions, "lost": lost, "faults": faults}


def _recorded(records: list[dict[str, Any]], scratch: Path) -> tuple[list[FormerRun], list[str]]:
    runs, faults = [], []
    for record in records:
        try:
            runs.append(recorded_run(record, Path(tempfile.mkdtemp(dir=scratch))))
        except ValidationError as error:
            faults.append(f"{record['ref']}: its params are not of this version: {error.errors()[0]['msg']}")
    return runs, faults


def _refuse_strangers(workspace: Path, known: dict[str, dict[str, str]], say: Say) -> None:
    """Raise UserError for a store whose versions have other numbers than Git records: that is no index of this history."""
    say("reading what MLflow has")
    tracker = Tracker(workspace)
    for name, wanted in known.items():
        for sha256, number in tracker.numbers(name).items():
            if wanted.get(sha256, number) != number:
                raise UserError(
                    f"{tracker.shown_uri}: {name}/{number} is version {wanted[sha256]} by the records in Git; rebuild into an "
                    "empty store: move .compactlm/mlflow away, or set MLFLOW_TRACKING_URI"
                )


def _champion(workspace: Path, name: str, decided: Decided) -> list[str]:
    """Point champion and previous where the log of decisions says, and return what stands in the way."""
    tracker = Tracker(workspace)
    try:
        if tracker.versions(name):
            decided.reconcile(tracker, name)
    except UserError as error:
        return [str(error)]
    return []


def list_versions(workspace: Path, name: str) -> list[dict[str, Any]]:
    """Return a row a version of a registered model, of those that this project registered."""
    tracker = Tracker(workspace)
    aliases = tracker.aliases(name)
    return [
        {
            "model": name,
            "version": int(number),
            "model_sha256": sha256,
            "aliases": sorted(alias for alias, pointed in aliases.items() if pointed == number),
        }
        for sha256, number in tracker.numbers(name).items()
    ]
