"""`compactlm gc`: what nothing that stays refers to, with its bytes; and its removal, once somebody says yes.

Order of a removal: on record in Git (`tasks.registry.dropped`), out of MLflow, its files, then objects of DVC's cache. Each step
finds what is left of an earlier one that was cut short.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import ROUNDS
from tasks.errors import UserError
from tasks.files import parse_object
from tasks.git import has_git, is_shallow, refs_of
from tasks.params.file import model_name
from tasks.registry.dropped import Dropped, DroppedVersion, dropped_versions, read_dropped, record_dropped
from tasks.registry.keeping import Choice, Index, choose, key_of, read_index
from tasks.registry.named import names_of, texts_here
from tasks.registry.reading import own_tags
from tasks.registry.runs import REFS, read_runs
from tasks.registry.store import STORED, RegisteredVersion
from tasks.registry.tracking import Tracker, is_shared, store_exists
from tasks.running.dvc import cache_folder, read_state, remove_objects
from tasks.running.objects import md5, names_here, outputs_in, with_files
from tasks.running.start import only_run

OWNED: Final = ".compactlm"
UNFINISHED: Final = (
    "audit-*",
    "gc-*",
    "rebuild-*",
    "tmp*",
    "**/.partial-*",
    "**/*.partial",
)  # what a kill leaves, below .compactlm
OLD_SECONDS: Final = 3600.0  # somebody may still be at work on what is younger


@dataclass
class Plan:
    """What stays and what goes, before anything has."""

    choice: Choice = field(default_factory=Choice)
    index: Index | None = None
    folders: dict[Path, int] = field(default_factory=dict)  # MLflow's files -> bytes
    objects: dict[str, int] = field(default_factory=dict)  # md5 in DVC's cache -> bytes
    entries: dict[Path, int] = field(default_factory=dict)  # of the run cache
    leftovers: dict[Path, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, dict[str, int]]:
        """Return kind -> number and bytes of what goes."""
        kinds: dict[str, Mapping[Any, int]] = {
            "mlflow_folders": self.folders,
            "dvc_objects": self.objects,
            "run_cache_entries": self.entries,
            "leftovers": self.leftovers,
        }
        return {kind: {"count": len(files), "bytes": sum(files.values())} for kind, files in kinds.items()}


@contextmanager
def planned(workspace: Path, keep: int, log: Sequence[Mapping[str, Any]]) -> Iterator[Plan]:
    """Give what would go if the `keep` newest versions of each model stay; the workspace is held meanwhile.

    `log` are all decisions. UserError where what refers to something cannot be known.
    """
    if keep < 1:
        raise UserError(f"--keep {keep}: at least 1 version of each model stays; give a number from 1 on")
    if not has_git(workspace):
        raise UserError(f"{workspace}: in no Git repository, so nobody knows what commits refer to; `git init`, then commit all")
    if is_shallow(workspace):
        raise UserError(f"{workspace}: this clone lacks older commits, and with them what they refer to; `git fetch --unshallow`")
    with only_run(workspace):
        yield _plan(workspace, keep, log)


def _plan(workspace: Path, keep: int, log: Sequence[Mapping[str, Any]]) -> Plan:
    plan = Plan()
    tracker = Tracker(workspace) if store_exists(workspace) else None
    if tracker is not None and is_shared():
        plan.notes.append("the versions of a shared MLflow server stay: whoever manages that server decides (infra/README.md)")
        plan.choice = choose(workspace, Index([], {}, {}, {}, {}, []), [], keep)
    elif tracker is not None:
        plan.index = read_index(tracker)
        plan.choice = choose(workspace, plan.index, log, keep)
        plan.folders = _folders(workspace, plan.choice)
    else:
        plan.choice = choose(workspace, Index([], {}, {}, {}, {}, []), log, keep)
    _plan_objects(workspace, tracker, plan)
    plan.leftovers = _leftovers(workspace)
    return plan


def _folders(workspace: Path, choice: Choice) -> dict[Path, int]:
    """Return the folders of MLflow's files that go, also those that an earlier removal has left."""
    before = read_dropped(workspace)
    runs = choice.runs | {run for one in before for run in one["runs"]}
    models = choice.models | {model for one in before for model in one["models"]}
    stored = workspace / STORED
    places = [*(stored / run for run in runs), *(stored / "models" / model for model in models)]
    return {place: _size(place) for place in sorted(places) if place.is_dir()}


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(path.lstat().st_size for path in files if not path.is_dir())


# Objects of DVC's cache


def _plan_objects(workspace: Path, tracker: Tracker | None, plan: Plan) -> None:
    cache = cache_folder(workspace)
    if not cache.resolve().is_relative_to(workspace.resolve()):
        plan.notes.append(f"DVC's cache {cache} lies outside of the project, where others may use it: nothing of it goes")
        return
    here = names_here(cache)
    kept = with_files(cache, _names(workspace, tracker, plan))
    plan.objects = {name: size for name, size in here.items() if name not in kept}
    for path in (cache / "runs").glob("??/*/*"):
        outputs = outputs_in(path.read_text(encoding="utf-8", errors="replace")).values()
        if not plan.objects.keys().isdisjoint(outputs):
            plan.entries[path] = path.stat().st_size


def _names(workspace: Path, tracker: Tracker | None, plan: Plan) -> set[str]:
    """Return the objects that something which stays names."""
    names = names_of([*plan.choice.tips, *texts_here(workspace)])
    newest = {record["model"]: record for record in read_runs(workspace, every=True)}
    names |= names_of(record["dvc_lock"] for record in newest.values())
    index = plan.index
    gone = _gone_rounds(index, plan.choice) if index else {}
    left_out = {ref for ref, blob in refs_of(workspace, REFS).items() if blob in plan.choice.records}
    for record in read_runs(workspace):
        if record["ref"] not in left_out:
            without = gone.get(record["inputs_digest"], set())
            names |= {name for path, name in outputs_in(record["dvc_lock"]).items() if not _is_in(path, without)}
    if tracker is not None:
        going = {key_of(entry) for entry in plan.choice.going}
        own = {*newest, model_name(workspace)}  # a server may hold those of others
        staying = [entry for name in own for entry in tracker.versions(name) if key_of(entry) not in going]
        with tempfile.TemporaryDirectory(prefix="gc-", dir=workspace / OWNED) as scratch:
            names |= _of_receipts(tracker, index, staying, plan.choice.runs, Path(scratch))
    return names


def _gone_rounds(index: Index, choice: Choice) -> dict[str, set[str]]:
    """Return digest of the inputs of a run -> its rounds that go."""
    found: dict[str, set[str]] = {}
    for pipeline, rounds in index.pipelines.items():
        found.setdefault(index.digests[pipeline], set()).update(name for name, run in rounds.items() if run in choice.runs)
    return found


def _is_in(path: str, rounds: Iterable[str]) -> bool:
    return any(path.startswith(f"{ROUNDS}/{name}/") for name in rounds)


def _of_receipts(
    tracker: Tracker, index: Index | None, staying: Iterable[RegisteredVersion], gone: Collection[str], scratch: Path
) -> set[str]:
    """Return the objects in the receipts of the runs in which the staying versions were made, but for rounds that go."""
    names: set[str] = set()
    places: dict[str, set[str]] = {}  # run -> its rounds that go
    for entry in staying:
        run_id = own_tags(entry.tags).get("run_id", "")
        if tracker.has_run(run_id):
            pipeline = tracker.parent_of(run_id) or run_id
            rounds = index.pipelines.get(pipeline, {}) if index else {}
            places[pipeline] = {name for name, run in rounds.items() if run in gone}
            places[run_id] = set()
    for run_id, without in places.items():
        folder = tracker.run_files(run_id, "receipts", scratch)
        for path in folder.glob("*.json") if folder else ():
            content = path.read_bytes()
            names |= {md5(content), *_in_receipt(content, without)}
    return names


def _in_receipt(content: bytes, without: Iterable[str]) -> set[str]:
    receipt = parse_object(content)
    entries = [item for role in ("inputs", "outputs") for item in receipt.get(role, {}).items()]
    kept = [entry for path, entry in entries if not _is_in(path, without)]
    return {str(each["md5"]) for entry in kept for each in (entry, *entry.get("files", {}).values()) if "md5" in each}


# Leftovers


def _leftovers(workspace: Path) -> dict[Path, int]:
    """Return what killed commands have left below .compactlm, and half-done trainings of stages that are up to date."""
    owned = workspace / OWNED
    before = time.time() - OLD_SECONDS
    found = {path for pattern in UNFINISHED for path in owned.glob(pattern)}
    old = [path for path in found if path.lstat().st_mtime < before]
    scratch = [path for path in (owned / "scratch").glob("*") if path.is_dir()]
    if scratch:
        _, waiting = read_state(workspace)
        old += [path for path in scratch if path.name not in waiting]
    outermost = [path for path in old if not any(above in old for above in path.parents)]
    return {path: _size(path) for path in sorted(outermost)}


# Removal


def remove(workspace: Path, plan: Plan, keep: int, at: str, actor: str) -> None:
    """Remove what the plan says; call it while the plan is held. What is cut short is finished by the next call."""
    choice = plan.choice
    known = dropped_versions(read_dropped(workspace))
    new = [entry for entry in choice.going if (entry.name, own_tags(entry.tags)["model_sha256"], entry.version) not in known]
    if new or choice.records:
        record_dropped(workspace, _dropped(plan, keep, at, actor))
    if plan.index is not None and (dropped := read_dropped(workspace)):
        tracker = Tracker(workspace)
        versions = {(entry["model"], entry["version"]) for one in dropped for entry in one["versions"]}
        runs, models = ({each for one in dropped for each in one[key]} for key in ("runs", "models"))
        tracker.take_away(versions, runs, models)
    for folder in (*plan.folders, *plan.leftovers):
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink(missing_ok=True)
    if plan.objects or plan.entries:
        remove_objects(workspace, list(plan.objects), list(plan.entries))


def _dropped(plan: Plan, keep: int, at: str, actor: str) -> Dropped:
    choice = plan.choice
    versions = []
    for entry in choice.going:
        tags = own_tags(entry.tags)
        versions.append(
            DroppedVersion(model=entry.name, version=entry.version, model_sha256=tags["model_sha256"], round=tags["round"])
        )
    runs, models, records = (sorted(ids) for ids in (choice.runs, choice.models, choice.records))
    return Dropped(at=at, actor=actor, keep=keep, versions=versions, runs=runs, models=models, records=records)


def summary(plan: Plan) -> dict[str, Any]:
    """Return a plan as facts: versions that go, those that stay with their reasons, and bytes by kind."""
    index, parts = plan.index, plan.parts
    going = [{"model": entry.name, "version": int(entry.version), **_told(entry)} for entry in plan.choice.going]
    staying = [
        {"model": entry.name, "version": int(entry.version), "because": plan.choice.reasons[key_of(entry)], **_told(entry)}
        for entry in (index.versions if index else ())
        if key_of(entry) in plan.choice.reasons
    ]
    return {
        "versions": going,
        "staying": staying,
        "parts": parts,
        "bytes": sum(part["bytes"] for part in parts.values()),
        "notes": plan.notes,
    }


def _told(entry: RegisteredVersion) -> dict[str, str]:
    tags = own_tags(entry.tags)
    return {"round": tags.get("round", ""), "model_sha256": tags["model_sha256"]}
