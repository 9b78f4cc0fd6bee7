"""Everything MLflow says of one registered version and of the runs behind it, as plain values and fresh copies of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.audit.evidence import read_receipts
from tasks.errors import ParamsError, UserError
from tasks.files import digest, parse_json
from tasks.git import has_git
from tasks.lineage.merkle import RECEIPTS_ROOT
from tasks.params.file import model_name, read_yaml
from tasks.promotion.decide import number_of, state_of
from tasks.promotion.decisions import Decision, read_log
from tasks.promotion.marks import Stale, stale
from tasks.registry.downloads import LOADED_AS
from tasks.registry.reading import FILES_SHA256, PREFIX
from tasks.registry.records import RANDOM_INIT
from tasks.registry.selector import find_version
from tasks.registry.store import RegisteredVersion
from tasks.registry.tracking import Tracker, store_exists


@dataclass(frozen=True)
class RoundRecord:
    """What is recorded of one round: params, metric -> its points (value, step), and files."""

    name: str
    run_id: str
    params: Mapping[str, str]
    metrics: Mapping[str, list[tuple[float, int]]]
    evidence: Mapping[str, bytes]
    receipts: Mapping[str, bytes]
    model_id: str
    model_files: Mapping[str, Any]  # as `digest` returns them; empty when the model has no bytes
    model_files_sha256: str | None

    def content(self, name: str) -> dict[str, Any]:
        """Return the content of a file of the evidence; empty when it is missing or no JSON."""
        try:
            content = parse_json(self.evidence.get(name, b"{}"))
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Dossier:
    """One registered version: its tags, the registered model's aliases, its pipeline run, and its rounds by name."""

    name: str
    version: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]  # alias -> version number
    decided: Mapping[str, str | None]  # alias -> the version number that the log of decisions gives it
    log_fault: str | None  # what is wrong with the log of decisions
    stale: Stale | None  # why this clone cannot say where the aliases belong: others have decided since
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

    def title(self) -> dict[str, Any]:
        """Return what every answer about a version begins with: model, version, round, aliases, sha256 of the weights."""
        return {
            "model": self.name,
            "version": int(self.version),
            "round": self.round,
            "aliases": sorted(alias for alias, number in self.aliases.items() if number == self.version),
            "model_sha256": self.tags.get("model_sha256"),
        }


def require_store(workspace: Path) -> None:
    """Raise UserError unless there is a store to read."""
    if not store_exists(workspace):
        raise UserError(f"{workspace}: no model is registered yet; `compactlm run` makes some")


def find_dossier(tracker: Tracker, selector: str | None, scratch: Path) -> Dossier:
    """Return what is recorded of the version that people name so; raises UserError as `find_version` and `read_dossier`."""
    return read_dossier(tracker, *find_version(tracker, selector, model_name(tracker.workspace)), scratch)


def read_dossier(tracker: Tracker, name: str, number: str, scratch: Path) -> Dossier:
    """Return what is recorded of a registered version; files kept elsewhere are fetched anew below `scratch`.

    Raises UserError when the version is not ours.
    """
    versions = {str(version.version): _own_tags(version.tags) for version in tracker.all_versions(name)}
    tags = versions[number]
    if "run_id" not in tags:
        raise UserError(f"{name}/{number}: it was not registered by compactlm, so nothing of its lineage is recorded")
    run_id = tracker.parent_of(tags["run_id"]) or tags["run_id"]
    run_tags = tracker.run_tags(run_id)
    runs = {key.removeprefix("round/"): value for key, value in run_tags.items() if key.startswith("round/")}
    runs[tags["round"]] = tags["run_id"]
    decided, log_fault, unknown, log = _decided(tracker, name)
    selection = tracker.run_files(run_id, "selection.json", scratch)
    return Dossier(
        name=name,
        version=number,
        tags=tags,
        aliases=tracker.aliases(name),
        decided=decided,
        log_fault=log_fault,
        stale=unknown,
        in_git=has_git(tracker.workspace),
        log=log,
        versions=versions,
        run_id=run_id,
        receipts=_receipts(tracker, run_id, scratch),
        receipts_root=run_tags.get(RECEIPTS_ROOT),
        inputs_digest=run_tags.get("inputs_digest"),
        selection=selection.read_bytes() if selection else None,
        rounds={label: _round(tracker, label, run, scratch) for label, run in sorted(runs.items())},
    )


def _decided(tracker: Tracker, name: str) -> tuple[dict[str, str | None], str | None, Stale | None, list[Decision]]:
    """Return alias -> version number by the log of decisions, what is wrong with it, whether it lacks some, and its decisions."""
    if not has_git(tracker.workspace):
        return {}, None, None, []
    try:
        log = read_log(tracker.workspace)
    except (UserError, ValueError, IndexError) as error:  # the latter two: Git cannot read an object of the refs
        return {}, str(error), None, []
    # By weights: the numbers of the log are those of its time.
    decided = {alias: number_of(tracker, name, version) for alias, version in state_of(log, name).items()}
    return decided, None, stale(tracker, name, log), [entry for entry in log if entry["model"] == name]


def _round(tracker: Tracker, name: str, run_id: str, scratch: Path) -> RoundRecord:
    model_id = tracker.run_tags(run_id).get("model_id", "")
    folder = tracker.model_files(model_id, scratch) if model_id else None
    parts = {"": "evidence", "predictions/": "predictions", f"{RANDOM_INIT}/": RANDOM_INIT}
    stored = {prefix: tracker.run_files(run_id, part, scratch) for prefix, part in parts.items()}
    return RoundRecord(
        name=name,
        run_id=run_id,
        params=tracker.run_params(run_id),
        metrics=tracker.run_points(run_id),
        evidence={
            prefix + path.name: path.read_bytes()
            for prefix, folder in stored.items()
            for path in (sorted(folder.iterdir()) if folder else ())
        },
        receipts=_receipts(tracker, run_id, scratch),
        model_id=model_id,
        model_files=digest(folder, _added_by_mlflow(tracker, model_id, folder)) if folder else {},
        model_files_sha256=tracker.model_tags(model_id).get(FILES_SHA256) if model_id else None,
    )


def _added_by_mlflow(tracker: Tracker, model_id: str, folder: Path) -> list[str]:
    """Return the files that MLflow itself has put beside a model which somebody loaded or served: which version that was.

    A file of that name that says anything else than a version of this model is no such file.
    """
    place = folder / LOADED_AS
    try:
        said = read_yaml(place) if place.is_file() else None
    except ParamsError:
        return []
    versions = [(entry.name, entry.version) for entry in tracker.all_versions(None) if _is_of(entry, model_id)]
    written: list[dict[str, Any]] = [{"model_name": None, "model_version": None}]  # of one loaded by its id
    for name, number in versions:
        written += [{"model_name": name, "model_version": number}, {"model_name": name, "model_version": int(number)}]
    return [LOADED_AS] if said in written else []


def _is_of(entry: RegisteredVersion, model_id: str) -> bool:
    return entry.source.rpartition("/")[2] == model_id or _own_tags(entry.tags).get("model_id") == model_id


def _receipts(tracker: Tracker, run_id: str, scratch: Path) -> dict[str, bytes]:
    folder = tracker.run_files(run_id, "receipts", scratch)
    return read_receipts(folder) if folder else {}


def _own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}
