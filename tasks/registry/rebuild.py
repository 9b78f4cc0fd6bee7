"""Makes MLflow's index again from Git and DVC: runs, versions with their numbers, metrics, models, aliases.

What ran stands in the records of runs (tasks/registry/runs.py), else in commits that have a dvc.lock, else in the workspace's.
Their files come from wherever they are (tasks/registry/former.py), the champion from the log of decisions. Nothing is trained or
measured.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.errors import UserError
from tasks.git import has_git
from tasks.registry.former import FormerFiles, FormerRun, committed_runs, find_and_fetch, recorded_run
from tasks.registry.live import record_receipts
from tasks.registry.publish import Publication
from tasks.registry.runs import numbers, read_runs
from tasks.registry.tracking import Tracker, store_exists
from tasks.running.objects import objects_of
from tasks.running.start import only_run

LOST: Final = "its files are neither here nor at the DVC remote, or nothing says which they are"
SHOWN: Final = 3  # missing files of a run
Say = Callable[[str], None]
Known = Mapping[str, Mapping[str, str]]  # model -> sha256 of weights -> version number


@dataclass(frozen=True)
class Decided:
    """What is known of decisions: the log of a project, whether it may be gone by, and how aliases are brought to it.

    `refuse` raises UserError where the aliases of a model stand by a decision that is not in the log.
    """

    read_log: Callable[[Path], list[dict[str, Any]]]
    refuse: Callable[[Tracker, str, list[dict[str, Any]]], None]
    reconcile: Callable[[Tracker, str], object]


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


def rebuild(workspace: Path, decided: Decided, say: Say = lambda _: None, *, give_up: bool = False) -> dict[str, Any]:
    """Return the runs recorded again, the versions there are now, and those that could not be made again.

    Adds what is missing and changes no number. UserError when the store has versions of which Git knows nothing, its aliases
    stand by a decision that this clone does not know, or a version cannot be made again: MLflow counts on, so that its number
    would be lost for good, to which `give_up` says yes. ResourceError while a run is under way here.
    """
    with only_run(workspace):
        return rebuild_locked(workspace, decided, say, give_up=give_up)


def rebuild_locked(workspace: Path, decided: Decided, say: Say, *, give_up: bool = False) -> dict[str, Any]:
    """As `rebuild`, for a caller that holds the workspace."""
    with tempfile.TemporaryDirectory(prefix="rebuild-", dir=workspace / ".compactlm") as folder:
        scratch = Path(folder)
        log = decided.read_log(workspace) if has_git(workspace) else []
        records = read_runs(workspace)
        names = {record["model"] for record in records} | {entry["model"] for entry in log}
        known = {name: numbers(records, log, name) for name in names}
        if has_store := store_exists(workspace):  # to ask would make one, which the next run would take for what was published
            _refuse_strangers(workspace, known, say)
        recorded, faults = _recorded(records, scratch)
        committed = committed_runs(workspace, {record["dvc_lock"] for record in read_runs(workspace, every=True)}, scratch)
        found, trouble = _find(workspace, committed, recorded, known if records else None, say)
        for name in {run.model for run, _ in found} | names if has_store else ():
            decided.refuse(Tracker(workspace), name, log)
        if not give_up:
            here = {name: Tracker(workspace).numbers(name) if has_store else {} for name in known}
            _refuse_lost(known, here, found, [*faults, *([trouble] if trouble else [])])
        done = []
        for run, files in found:
            say(f"recording {run.where} of {run.model}")
            files.copy(run.root)
            record_again(workspace, run, run.whole_stages(files), known.get(run.model, {}))
            missing = {stage: [*paths] for stage, paths in files.missing.items()}
            done.append({"where": run.where, "model": run.model, "missing": missing})
            shutil.rmtree(run.root)
    names |= {run["model"] for run in done}
    lost = []
    for name in sorted(names):
        lost += lost_versions(workspace, name, known.get(name, {}))
        faults += _champion(workspace, name, decided) if log else []
    versions = [version for name in sorted(names) for version in list_versions(workspace, name)]
    return {"runs": done, "versions": versions, "lost": lost, "faults": faults}


def _find(
    workspace: Path, committed: list[FormerRun], recorded: list[FormerRun], known: Known | None, say: Say
) -> tuple[list[tuple[FormerRun, FormerFiles]], str]:
    """Return the runs to record, oldest first, with their files, and why the DVC remote could not be asked.

    Once runs are recorded (`known` is not None), one that Git alone has was never published unless a version of it is known.
    """
    objects = objects_of(workspace)
    say(f"looking for the files of {len(committed) + len(recorded)} runs")
    if known is None:
        files, trouble = find_and_fetch(committed, objects, say)
        return list(zip(committed, files, strict=True)), trouble
    files, trouble = find_and_fetch(recorded, objects, say)
    former = [(run, run.find(objects)) for run in committed]
    published = [(run, found) for run, found in former if set(run.weights(found).values()) & set(known.get(run.model, {}))]
    return [*published, *zip(recorded, files, strict=True)], trouble


def _refuse_lost(known: Known, here: Known, found: Sequence[tuple[FormerRun, FormerFiles]], trouble: Sequence[str]) -> None:
    """Raise UserError if the number of a version would be lost for good: it comes after those of the versions that are `here`."""
    lost = []
    for name, wanted in known.items():
        last = max(map(int, here[name].values()), default=0)
        able = {sha256 for run, files in found if run.model == name for sha256 in run.whole_weights(files)} | here[name].keys()
        lost += [f"{name}/{number}" for sha256, number in wanted.items() if sha256 not in able and int(number) > last]
    if not lost:
        return
    files = sorted({path for _, each in found for paths in each.missing.values() for path in paths})
    words = [
        *trouble,
        f"missing are {', '.join(files[:SHOWN])}" + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""),
    ]
    raise UserError(
        f"{', '.join(sorted(lost))} cannot be made again ({'; '.join(words if files else trouble)}), so nothing is recorded: "
        "MLflow counts on, and these numbers would be lost for good. Bring the files here, such as by `dvc push` where they are, "
        "and ask again; or give those versions up: compactlm publish --rebuild --give-up"
    )


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
