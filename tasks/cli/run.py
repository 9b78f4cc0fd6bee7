"""The command that brings every stage up to date; where all are, it finds so without starting anything."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.cli.console import Json, RunLines, err, print_json, show
from tasks.cli.project import find_project, params_of
from tasks.errors import ParamsError, SourceError, UserError


def run(
    params: Annotated[Path | None, typer.Option(help="Use this description of a run instead of params.yaml.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value; repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Stages to run at the same time.")] = 1,
    commit: Annotated[bool, typer.Option("--commit", help="Commit params and sources before it, the result after it.")] = False,
    accept_data: Annotated[bool, typer.Option("--accept-data", help="Whatever validate_data.drift says of new data.")] = False,
    as_json: Json = False,
) -> None:
    """Bring every stage up to date and record the result.

    --params and --set change params.yaml itself, after everything was checked; `compactlm undo` takes that back.

    --commit records params.yaml and sources.lock in Git before the first stage, and dvc.lock, sources.lock and decisions.jsonl
    at the end, and no other file.

    Exit code 0: a round passes its gates; 1: a stage failed; 2: you can mend it; 3: all is up to date and no round passes;
    4: all is up to date and MLflow did not take the record of it: `compactlm publish` delivers that.
    """
    import psutil

    from tasks.running.start import only_run

    started = psutil.Process().create_time()
    workspace = find_project()
    # Before anything is imported or started: a second run ends here, and leaves no run of a flow behind.
    with _run_lines(), only_run(workspace):
        if commit:
            _require_commits(workspace)
        asked = Asked(workers, started, commit, accept_data)
        record = _bring_up_to_date(workspace, params, set_ or [], asked)
    from tasks.cli.ending import EXIT_NOT_RECORDED, EXIT_NOTHING_PASSED, ending_lines, read_ending, result_line
    from tasks.running.surroundings import surroundings_remarks

    undelivered = record.get("undelivered", "")
    ending = read_ending(workspace, params_of(workspace), undelivered)
    code = EXIT_NOT_RECORDED if undelivered else 0 if ending["selected"] else EXIT_NOTHING_PASSED
    worked = record["state"] != "no change"
    lines = [result_line(ending), f"report: {ending['report']}"]
    if worked:
        lines = [*ending_lines(ending, workspace), *(f"note: {remark}" for remark in surroundings_remarks(workspace))]
    lines = [f"not recorded: {undelivered}", *lines] if undelivered else lines
    for line in lines:
        err.print(line)
    if commit:
        record["commit"] = _commit_result(workspace, result_line(ending))
        err.print(f"commit: {record['commit'] or 'nothing is new'}")
    if as_json:
        print_json({**record, "sentence": result_line(ending), "result": ending, "exit_code": code})
    sys.exit(code)


def undo(as_json: Json = False) -> None:
    """Take back the last change of params.yaml by `run --set` or `run --params`, and nothing else; repeatable."""
    from tasks.params.edit import undo as take_back

    lines = take_back(find_project())
    show({"undone": lines}, as_json, *lines, "`compactlm run` brings the stages there")


def _require_commits(workspace: Path) -> None:
    """Raise UserError where nothing can be committed, before a run has worked for it."""
    from tasks.git import commit_of

    if not commit_of(workspace, "HEAD"):
        raise UserError(f"--commit: {workspace} is in no Git repository with a commit; `git init`, add its files and commit them")


def _commit_result(workspace: Path, result: str) -> str:
    """Return the commit of what a run has left for Git, empty where nothing of that is new."""
    from tasks.git import commit_files

    return commit_files(workspace, ["dvc.lock", "sources.lock", "decisions.jsonl"], f"compactlm run: {result}")


@dataclass(frozen=True)
class Asked:
    """How a run is to work: stages at the same time, when its command began, whether it commits, whether all data is accepted."""

    workers: int
    started: float
    commit: bool
    accept_data: bool


def _bring_up_to_date(workspace: Path, params: Path | None, changes: list[str], asked: Asked) -> dict[str, Any]:
    """Return the record of a run in a workspace that is held for it, after its params were changed as asked."""
    from tasks.params.edit import planned_text, require_file, write_text
    from tasks.running.start import check_run, prepare_run

    require_file(params)
    text = planned_text(workspace, params, changes)
    if _is_unchanged(workspace, text):
        return _no_change(asked.started)
    check_run(workspace, text)
    for line in write_text(workspace, text):
        err.print(line)
    if asked.commit:
        from tasks.git import commit_files

        prepare_run(workspace, checked=True)
        commit_files(workspace, ["params.yaml", "sources.lock"], "compactlm run: the params and sources of the next run")
    return _run_flow(workspace, asked)


def _no_change(started: float) -> dict[str, Any]:
    return {"state": "no change", "wall_seconds": round(time.time() - started, 2), "stages": []}


def _is_unchanged(workspace: Path, text: str) -> bool:
    """Return whether nothing is to do; then what is not recorded yet of the last run is recorded.

    Whatever is not as that run has left it is for a run, which checks everything before it changes anything.
    """
    from tasks.params.file import load_text, read_text

    if not (workspace / "dvc.lock").exists() or text != read_text(workspace / "params.yaml"):
        return False
    try:
        params = load_text(text, "params.yaml")
    except ParamsError:
        return False  # what is wrong with it is said with all else
    from tasks.data.sources import is_locked
    from tasks.promotion.first_champion import rebuild_lost, settle_champion
    from tasks.registry.live import open_recorder
    from tasks.running.surroundings import surroundings_faults

    if surroundings_faults(workspace, os.environ, params.registry.model_name):
        return False  # so is what is wrong around it
    rebuild_lost(workspace)
    try:
        if not is_locked(params.sources(), workspace / "sources.lock"):
            return False
    except SourceError:
        return False
    recorder, waiting = open_recorder(workspace, params, settle_champion)
    if waiting:
        return False
    recorder.finish_unchanged()
    return True


def _run_flow(workspace: Path, asked: Asked) -> dict[str, Any]:
    from flows.server import configure, run_server
    from tasks.running.last_run import sentence, write_last_run

    configure(workspace)
    with run_server() as ready:
        # The server takes seconds to start in a process of its own; meanwhile this one can import.
        from flows.compress import compress_at
        from flows.outage import Watch
        from tasks.registry.tracking import preload

        preload()
        result = compress_at(Watch(ready()), workspace, asked.workers, asked.started, asked.accept_data)
    if not isinstance(result, dict):
        return _no_change(asked.started)
    # Measured again: the flow's own end takes a second or two, which belongs to the run as well.
    undelivered = result.get("undelivered", "")
    record = write_last_run(workspace, result["state"], result["stages"], time.time() - asked.started, undelivered)
    err.print(sentence(record))
    return record


@contextmanager
def _run_lines() -> Iterator[None]:
    """Show what the flow and its stages say, with one line that moves for progress."""
    logger = logging.getLogger("compactlm")
    handler = RunLines(err)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with handler:
            yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
