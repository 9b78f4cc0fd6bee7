"""Everything MLflow says of one registered version and of the runs behind it, as plain values and fresh copies of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import UserError
from tasks.files import digest
from tasks.git import has_git
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.promotion.decide import number_of, state_of
from tasks.promotion.decisions import Decision, read_log
from tasks.registry.reading import PREFIX
from tasks.registry.tracking import FILES_SHA256, Tracker


@dataclass(frozen=True)
class RoundRecord:
    """What is recorded of one round: tags (without prefix), params, metric -> its points (value, step), and files."""

    name: str
    run_id: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, list[tuple[float, int]]]
    evidence: Mapping[str, bytes]
    receipts: Mapping[str, bytes]
    model_id: str
    model_files: Mapping[str, Any]  # as `digest` returns them; empty when the model has no bytes
    model_files_sha256: str | None


@dataclass(frozen=True)
class Dossier:
    """One registered version: its tags, the registered model's aliases, its pipeline run, and its rounds by name."""

    name: str
    version: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]  # alias -> version number
    decided: Mapping[str, str | None]  # alias -> the version number that the log of decisions gives it
    log_fault: str | None  # what is wrong with the log of decisions
    in_git: bool  # outside of Git no decision can be recorded
    log: Sequence[Decision]  # the decisions about this model; none if the log is broken
    versions: Mapping[str, Mapping[str, str]]  # every version of this model -> its tags; empty tags: not ours
    run_id: str
    receipts: Mapping[str, bytes]
    receipts_root: str | None
    inputs_digest: str | None  # what identifies the run: params, sources, pipeline and code
    selection: bytes | None
    rounds: Mapping[str, RoundRecord]

    @property
    def round(self) -> str:
        """Return the name of the version's round."""
        return str(self.tags["round"])


def read_dossier(tracker: Tracker, name: str, number: str, scratch: Path) -> Dossier:
    """Return what is recorded of a registered version; files kept elsewhere are fetched anew below `scratch`.

    Raises UserError when the version is not ours.
    """
    every = {str(one.version): _ours(one.tags) for one in tracker.all_versions(name)}
    aliases = tracker.aliases(name)
    tags = every[number]
    if "run_id" not in tags:
        raise UserError(f"{name}/{number}: it was not registered by compactlm, so nothing of its lineage is recorded")
    run_id = tracker.parent_of(tags["run_id"]) or tags["run_id"]
    run_tags = tracker.run_tags(run_id)
    runs = {key.removeprefix("round/"): value for key, value in run_tags.items() if key.startswith("round/")}
    runs[tags["round"]] = tags["run_id"]
    decided, log_fault, log = _decided(tracker, name)
    return Dossier(
        name=name,
        version=number,
        tags=tags,
        aliases=aliases,
        decided=decided,
        log_fault=log_fault,
        in_git=has_git(tracker.workspace),
        log=log,
        versions=every,
        run_id=run_id,
        receipts=_by_stage(tracker.run_files(run_id, "receipts", scratch)),
        receipts_root=run_tags.get(RECEIPTS_ROOT),
        inputs_digest=run_tags.get("inputs_digest"),
        selection=_read(tracker, run_id, "selection.json", scratch),
        rounds={one: _round(tracker, one, run, scratch) for one, run in sorted(runs.items())},
    )


def _decided(tracker: Tracker, name: str) -> tuple[dict[str, str | None], str | None, list[Decision]]:
    """Return alias -> version number by the log of decisions, what is wrong with the log, and its decisions."""
    if not has_git(tracker.workspace):
        return {}, None, []
    try:
        log = [entry for entry in read_log(tracker.workspace) if entry["model"] == name]
    except (UserError, ValueError, IndexError) as error:  # the latter two: Git cannot read an object of the refs
        return {}, str(error), []
    state = state_of(log, name)
    # By weights: the numbers of the log are those of its time.
    return {alias: number_of(tracker, name, version) for alias, version in state.items()}, None, log


def _round(tracker: Tracker, name: str, run_id: str, scratch: Path) -> RoundRecord:
    tags = tracker.run_tags(run_id)
    model_id = tags.get("model_id", "")
    model_tags = tracker.model_tags(model_id) if model_id else {}
    folder = tracker.model_files(model_id, scratch) if model_id else None
    evidence = tracker.run_files(run_id, "evidence", scratch)
    return RoundRecord(
        name=name,
        run_id=run_id,
        tags=tags,
        params=tracker.run_params(run_id),
        metrics=tracker.run_points(run_id),
        evidence=_contents(evidence, "") | _contents(tracker.run_files(run_id, "predictions", scratch), "predictions/"),
        receipts=_by_stage(tracker.run_files(run_id, "receipts", scratch)),
        model_id=model_id,
        model_files=digest(folder) if folder else {},
        model_files_sha256=model_tags.get(FILES_SHA256),
    )


def _contents(folder: Path | None, prefix: str) -> dict[str, bytes]:
    return {prefix + path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder else {}


def _by_stage(folder: Path | None) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.json"))} if folder else {}


def _read(tracker: Tracker, run_id: str, name: str, scratch: Path) -> bytes | None:
    path = tracker.run_files(run_id, name, scratch)
    return path.read_bytes() if path else None


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}
