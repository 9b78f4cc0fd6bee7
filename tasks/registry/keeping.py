"""Which versions stay when old ones go, and why; and which runs of MLflow and records of runs go with those that do not stay.

A version stays if it is among the newest, an alias or a decision names it, the working tree or the tip of a branch holds its
weights, or a version that stays descends from it. All others are older than what anybody has asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import ROUNDS, TEACHER
from tasks.files import read_json
from tasks.git import refs_of
from tasks.registry.named import LOCK, texts_in_git
from tasks.registry.reading import own_tags
from tasks.registry.runs import REFS, read_runs
from tasks.registry.store import RegisteredVersion
from tasks.registry.tracking import Tracker

SHA256: Final = re.compile(r"\b[0-9a-f]{64}\b")
R0: Final = "r0"  # what the teacher's run is called


@dataclass(frozen=True)
class RoundRun:
    """MLflow's run of one round: the pipeline run that it was made in, its model, and the runs that it rests on."""

    run_id: str
    round: str
    pipeline: str
    model_id: str
    parent: str  # the round it was pruned from
    teacher: str  # the id of the teacher's run


@dataclass
class Index:
    """What MLflow and Git know of all versions, read once."""

    versions: list[RegisteredVersion]
    aliases: Mapping[tuple[str, str], list[str]]  # (model, number) -> aliases
    rounds: Mapping[str, RoundRun]  # by run id
    pipelines: Mapping[str, Mapping[str, str]]  # run id of a pipeline run -> round or `teacher` -> run id
    digests: Mapping[str, str]  # run id of a pipeline run -> the digest of its inputs
    records: list[dict[str, Any]]  # of runs in Git


@dataclass
class Choice:
    """What stays, with the reasons, and what goes."""

    reasons: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (model, number) -> why it stays
    going: list[RegisteredVersion] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    records: set[str] = field(default_factory=set)  # blobs
    tips: list[str] = field(default_factory=list)  # what dvc.lock says where refs point and here


def read_index(tracker: Tracker) -> Index:
    """Return what the registry of a workspace and its records in Git say."""
    versions = tracker.versions()
    aliases: dict[tuple[str, str], list[str]] = {}
    for name in {entry.name for entry in versions}:
        for alias, number in tracker.aliases(name).items():
            aliases.setdefault((name, number), []).append(alias)
    rounds = {run_id: _round(tracker, run_id) for run_id in tracker.find_runs({"kind": "round"})}
    tags = {run_id: tracker.run_tags(run_id) for run_id in tracker.find_runs({"kind": "pipeline"})}
    pipelines = {
        run_id: {key.removeprefix("round/"): value for key, value in own.items() if key.startswith("round/")}
        for run_id, own in tags.items()
    }
    digests = {run_id: own.get("inputs_digest", "") for run_id, own in tags.items()}
    return Index(versions, aliases, rounds, pipelines, digests, read_runs(tracker.workspace))


def _round(tracker: Tracker, run_id: str) -> RoundRun:
    tags = tracker.run_tags(run_id)
    model, parent, teacher = (tags.get(key, "") for key in ("model_id", "parent", "teacher_run_id"))
    return RoundRun(run_id, tags["round"], tracker.parent_of(run_id) or "", model, parent, teacher)


def choose(workspace: Path, index: Index, log: Sequence[Mapping[str, Any]], keep: int) -> Choice:
    """Return what stays and what goes if the `keep` newest versions of each model stay anyway."""
    choice = Choice(tips=_tips(workspace))
    _name_reasons(workspace, index, log, keep, choice)
    staying = _with_ancestors(index, choice)
    choice.going = [entry for entry in index.versions if key_of(entry) not in choice.reasons]
    gone_models = {own_tags(entry.tags).get("model_id", "") for entry in choice.going} - {""}
    choice.runs = {run.run_id for run in index.rounds.values() if run.model_id in gone_models and run.run_id not in staying}
    left = [run for run in index.rounds.values() if run.run_id not in choice.runs and run.round != R0]
    needed = {run.teacher for run in left}
    choice.runs |= {index.rounds[run_id].teacher for run_id in choice.runs} - needed - {""}
    choice.runs |= _empty_pipelines(index, choice)
    kept = {run.model_id for run in index.rounds.values() if run.run_id not in choice.runs}
    choice.models = {run.model_id for run in index.rounds.values() if run.run_id in choice.runs} - kept - {""}
    choice.records = _records(workspace, index, choice)
    return choice


def key_of(entry: RegisteredVersion) -> tuple[str, str]:
    """Return what names a version: model and number."""
    return entry.name, entry.version


def _tips(workspace: Path) -> list[str]:
    here = workspace / LOCK
    return [*texts_in_git(workspace, tips=True), *([here.read_text(encoding="utf-8")] if here.exists() else [])]


def _name_reasons(workspace: Path, index: Index, log: Sequence[Mapping[str, Any]], keep: int, choice: Choice) -> None:
    by_model: dict[str, list[RegisteredVersion]] = {}
    for entry in sorted(index.versions, key=lambda entry: int(entry.version), reverse=True):
        by_model.setdefault(entry.name, []).append(entry)
    newest = {key_of(entry) for entries in by_model.values() for entry in entries[:keep]}
    decided = _decided(workspace, log)
    held = {str(read_json(path)["model_sha256"]) for path in (workspace / ROUNDS).glob("*/evaluated/quality.json")}
    at_tips = _runs_at(index, choice.tips)
    for entry in index.versions:
        tags = own_tags(entry.tags)
        words = [f"@{alias}" for alias in sorted(index.aliases.get(key_of(entry), ()))]
        words += ["among the newest"] if key_of(entry) in newest else []
        words += [f"decision {number}" for number, named in decided.items() if tags["model_sha256"] in named]
        words += ["in the working tree"] if tags["model_sha256"] in held else []
        words += ["at the tip of a branch or tag"] if tags.get("run_id") in at_tips else []
        if words:
            choice.reasons[key_of(entry)] = words


def _decided(workspace: Path, log: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return number of a decision -> every sha256 in it; whatever an approval names counts as named by one, too."""
    named = {str(entry["number"]): set(SHA256.findall(str(entry))) for entry in log}
    signed = [path.read_text(encoding="utf-8", errors="replace") for path in (workspace / "approvals").glob("**/*.json")]
    return {**named, "in approvals": set[str]().union(*(SHA256.findall(text) for text in signed))}


def _runs_at(index: Index, tips: Iterable[str]) -> set[str]:
    """Return the runs of rounds of the pipeline runs whose dvc.lock is at a tip."""
    known = {*tips}
    digests = {record["inputs_digest"] for record in index.records if record["dvc_lock"] in known}
    return {run for pipeline, rounds in index.pipelines.items() if index.digests[pipeline] in digests for run in rounds.values()}


def _with_ancestors(index: Index, choice: Choice) -> set[str]:
    """Add the versions from which those that stay descend, and return the runs of rounds that stay with them."""
    staying: set[str] = set()
    while True:
        held = [entry for entry in index.versions if key_of(entry) in choice.reasons]
        models = {own_tags(entry.tags).get("model_id", "") for entry in held} - {""}
        runs = {run.run_id for run in index.rounds.values() if run.model_id in models}
        runs |= {above for run_id in runs for above in _above(index, index.rounds[run_id])}
        by_model = {index.rounds[run_id].model_id for run_id in runs if run_id in index.rounds} - {""}
        new = [
            entry
            for entry in index.versions
            if key_of(entry) not in choice.reasons and own_tags(entry.tags).get("model_id") in by_model
        ]
        staying |= runs
        if not new:
            return staying
        for entry in new:
            choice.reasons[key_of(entry)] = ["a version that stays descends from it"]


def _above(index: Index, run: RoundRun) -> list[str]:
    """Return the runs of the rounds that a round was made from, in its own pipeline run."""
    siblings, found, label = index.pipelines.get(run.pipeline, {}), [], run.parent
    while label not in ("", R0, TEACHER) and label in siblings and siblings[label] not in found:
        found.append(siblings[label])
        label = index.rounds[siblings[label]].parent if siblings[label] in index.rounds else ""
    return found


def _empty_pipelines(index: Index, choice: Choice) -> set[str]:
    """Return the pipeline runs of which every round goes, and in which no run that stays was made."""
    homes = {run.pipeline for run in index.rounds.values() if run.run_id not in choice.runs and run.round != R0}
    found = set()
    for pipeline, rounds in index.pipelines.items():
        students = {run_id for name, run_id in rounds.items() if name != TEACHER}
        if students and students <= choice.runs and pipeline not in homes:
            found.add(pipeline)
    return found


def _records(workspace: Path, index: Index, choice: Choice) -> set[str]:
    """Return the blobs of the records of pipeline runs that go; the newest record of a model, and one at a tip, stay."""
    blobs = refs_of(workspace, REFS)
    gone = {index.digests[run_id] for run_id in choice.runs if run_id in index.digests}
    gone -= {digest for run_id, digest in index.digests.items() if run_id not in choice.runs}
    newest = {record["model"]: record["ref"] for record in index.records}
    return {
        blobs[record["ref"]]
        for record in index.records
        if record["inputs_digest"] in gone and record["ref"] not in newest.values() and record["dvc_lock"] not in choice.tips
    }
