"""Records in MLflow what DVC has made: the run of the workspace, or with `rebuild` every run that Git and DVC still know."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.errors import UserError
from tasks.lineage.git import git_facts
from tasks.lineage.pipeline import pending, read_graph
from tasks.lineage.start import only_run
from tasks.params_file import load_params
from tasks.registry import rebuild as former
from tasks.registry.decisions import has_git, read_log
from tasks.registry.live import Recorder
from tasks.registry.promotion import reconcile
from tasks.registry.runs import numbers, read_runs
from tasks.registry.tracking import Tracker

Say = Callable[[str], None]


def publish(workspace: Path) -> dict[str, Any]:
    """Return round -> id of its run in MLflow, recorded now or before; UserError while a stage is not up to date."""
    with only_run(workspace):
        params = load_params(workspace / "params.yaml")
        stages = read_graph(workspace)
        waiting = pending(workspace, stages)
        if waiting:
            raise UserError(
                f"{workspace}: {len(waiting)} stages are not up to date, such as {waiting[0]}; `dvc repro` or "
                "`compactlm run` brings them there"
            )
        recorder = Recorder(workspace, params, stages, git_facts(workspace))
        runs = recorder.finish(dict.fromkeys((stage.name for stage in stages), "skipped"))
    return {"runs": runs, "versions": _versions(workspace, params.registry.model_name)}


def rebuild(workspace: Path, say: Say = lambda _: None) -> dict[str, Any]:
    """Return the runs recorded again, the versions there are now, and those that could not be made again.

    Adds what is missing and changes no number. UserError when the store has versions of which Git knows nothing.
    """
    (workspace / ".compactlm").mkdir(exist_ok=True)
    with only_run(workspace), tempfile.TemporaryDirectory(prefix="rebuild-", dir=workspace / ".compactlm") as folder:
        scratch = Path(folder)
        log = read_log(workspace) if has_git(workspace) else []
        records = read_runs(workspace)
        names = {record["model"] for record in records} | {entry["model"] for entry in log}
        known = {name: numbers(records, log, name) for name in names}
        _refuse_strangers(workspace, known, say)
        runs, faults = _recorded(records, scratch)
        told = []
        for run in [*former.committed_runs(workspace, {record["dvc_lock"] for record in records}, scratch), *runs]:
            say(f"looking for the files of {run.where}")
            missing = former.find_files(workspace, run)
            wanted = known.get(run.model, {})
            # Once runs are recorded, one that Git alone has was never published unless a record knows a version of it.
            if run in runs or not records or former.weights_of(run) & set(wanted):
                former.record_again(workspace, run, missing, wanted, say)
                told.append({"where": run.where, "model": run.model, "missing": missing})
            shutil.rmtree(run.root)
    names |= {one["model"] for one in told}
    lost = []
    for name in sorted(names):
        lost += former.lost_versions(workspace, name, known.get(name, {}))
        faults += _champion(workspace, name) if log else []
    versions = [one for name in sorted(names) for one in _versions(workspace, name)]
    return {"runs": told, "versions": versions, "lost": lost, "faults": faults}


def _recorded(records: list[dict[str, Any]], scratch: Path) -> tuple[list[former.FormerRun], list[str]]:
    runs, faults = [], []
    for record in records:
        try:
            runs.append(former.recorded_run(record, Path(tempfile.mkdtemp(dir=scratch))))
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
                    f"{tracker.uri}: {name}/{number} is version {wanted[sha256]} by the records in Git; rebuild into an "
                    "empty store: move .compactlm/mlflow away, or set MLFLOW_TRACKING_URI"
                )


def _champion(workspace: Path, name: str) -> list[str]:
    """Point champion and previous where the log of decisions says, and return what stands in the way."""
    tracker = Tracker(workspace)
    try:
        if tracker.versions(name):
            reconcile(tracker, name)
    except UserError as error:
        return [str(error)]
    return []


def _versions(workspace: Path, name: str) -> list[dict[str, Any]]:
    tracker = Tracker(workspace)
    aliases = tracker.aliases(name)
    return [
        {"model": name, "version": int(number), "model_sha256": sha256,
         "aliases": sorted(alias for alias, pointed in aliases.items() if pointed == number)}
        for sha256, number in tracker.numbers(name).items()
    ]  # fmt: skip
