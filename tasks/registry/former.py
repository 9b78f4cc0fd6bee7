"""Runs of former times: what Git says of them, and where the files are that an index needs of them.

dvc.lock names the receipt of each stage by its md5, and the receipt names every file that the stage wrote: they come from the
DVC cache, from a workspace that still has them, or from the DVC remote.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.artifacts import BASELINES, REPORT, ROUNDS, SELECTION, SETS, TEACHER, VALIDATION, RoundPaths, receipt_path
from tasks.files import read_json
from tasks.git import commits_of, snapshot
from tasks.lineage.chain import files_of
from tasks.params.base import Params
from tasks.params.file import read_yaml
from tasks.params.recorded import recorded_params
from tasks.registry.publish import inputs_digest
from tasks.registry.records import RANDOM_INIT
from tasks.running.dvc import stage_digests
from tasks.running.objects import Objects

LOCK: Final = "dvc.lock"
DECIDING: Final = (LOCK, "params.yaml", "sources.lock", "dvc.yaml")
# What an index needs of a run; the other files (checkpoints, tokens, logits) stay where they are.
NEEDED: Final = (
    *(SELECTION, REPORT, BASELINES, VALIDATION, f"{SETS}/*.parquet"),
    *(f"{ROUNDS}/*/trained/{name}" for name in ("model/*", "summary.json", "steps.jsonl", "search.json")),
    *(f"{ROUNDS}/*/exported/{name}" for name in ("model.onnx", "parity.json")),
    *(f"{ROUNDS}/*/{name}" for name in ("evaluated/*", "verdict.json", "pruned/plan.json", f"{RANDOM_INIT}/quality.json")),
)


@dataclass(frozen=True)
class FormerFiles:
    """Where the files of a run are: path in the run -> file with its bytes; `missing` is stage -> path -> md5 of the others.

    An md5 is None where nothing says it.
    """

    places: Mapping[str, Path]
    missing: Mapping[str, Mapping[str, str | None]]

    def lacking(self) -> set[str]:
        """Return the md5 of all that is missing, as far as it is known."""
        return {md5 for files in self.missing.values() for md5 in files.values() if md5}

    def copy(self, root: Path) -> None:
        """Copy the files below a folder."""
        for name, place in self.places.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, root / name)


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

    def find(self, objects: Objects) -> FormerFiles:
        """Return where its receipts and needed files are."""
        return find_files(read_yaml(self.root / LOCK), self.stages, objects)

    def weights(self, files: FormerFiles) -> dict[str, str]:
        """Return round -> sha256 of its weights, of the rounds whose evaluation was found."""
        qualities = {name: RoundPaths(Path(), name).quality.as_posix() for name in self.params.rounds}
        found = {name: files.places[path] for name, path in qualities.items() if path in files.places}
        return {name: str(read_json(place)["model_sha256"]) for name, place in found.items()}

    def whole_weights(self, files: FormerFiles) -> set[str]:
        """Return the sha256 of the weights of the rounds of which no file is missing: they can be registered again."""
        return {sha256 for name, sha256 in self.weights(files).items() if self._is_whole(name, files)}

    def whole_stages(self, files: FormerFiles) -> dict[str, str]:
        """Return stage -> digest of the stages to record: of a round of which a file is missing, none."""
        lost = {stage for stage in files.missing if stage.startswith(f"{RANDOM_INIT}@")}
        for name in (TEACHER, *self.params.rounds):
            if not self._is_whole(name, files):
                lost.update(RoundPaths(self.root, name).stages)
        return {stage: digest for stage, digest in stage_digests(self.root).items() if stage in {*self.stages} - lost}

    def _is_whole(self, name: str, files: FormerFiles) -> bool:
        stages = {*RoundPaths(self.root, TEACHER).stages, *RoundPaths(self.root, name).stages}
        return files.missing.keys().isdisjoint(stages)


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


def find_files(lock: Mapping[str, Any], stages: Sequence[str], objects: Objects) -> FormerFiles:
    """Return where the receipts and the needed files of a run are, each with the bytes of its md5."""
    places: dict[str, Path] = {}
    missing: dict[str, dict[str, str | None]] = {}
    for stage in stages:
        path = receipt_path(stage)
        outs = {out["path"]: out.get("md5") for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}
        receipt = objects.find(outs.get(path), path)
        if receipt is None:
            missing[stage] = {path: outs.get(path)}
            continue
        places[path] = receipt
        for name, facts in files_of(read_json(receipt), "outputs").items():
            if any(fnmatchcase(name, pattern) for pattern in NEEDED):
                place = objects.find(facts.get("md5"), name)
                if place is None:
                    missing.setdefault(stage, {})[name] = facts.get("md5")
                else:
                    places[name] = place
    return FormerFiles(places, missing)


def find_and_fetch(runs: Iterable[FormerRun], objects: Objects, say: Callable[[str], None]) -> tuple[list[FormerFiles], str]:
    """Return where the files of runs are, after those that are not here were fetched, and why the remote could not be asked."""
    all_runs, trouble = list(runs), ""
    found = [run.find(objects) for run in all_runs]
    asked: set[str] = set()
    while not trouble and (new := {md5 for files in found for md5 in files.lacking()} - asked):
        say(f"fetching {len(new)} files from the DVC remote")  # first receipts, then what they name
        trouble = objects.fetch(new)
        asked |= new
        found = [run.find(objects) for run in all_runs]
    return found, trouble
