"""The commands that keep a workspace: backup, restore, and what may go."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tasks.cli.console import Json, err, show
from tasks.cli.project import find_project, params_of
from tasks.git import has_git
from tasks.report.parts import size

EXIT_LACKING: Final = 1
KINDS: Final = {
    "mlflow_folders": "folders of MLflow's files",
    "dvc_objects": "objects of DVC's cache",
    "run_cache_entries": "entries of DVC's run cache",
    "leftovers": "leftovers of what was stopped",
}


def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; a later backup there adds what is new.")],
    as_json: Json = False,
) -> None:
    """Write all that makes this workspace: Git with all refs, models and runs in MLflow, DVC's objects, uncommitted files.

    Exit code 1: an object of DVC's cache was damaged and left out. `compactlm restore` brings it back.
    """
    from tasks.registry.backup import backup as make_backup

    workspace = find_project()
    with _held(workspace), err.status("backing up"):  # between two decisions, not within one
        answer = make_backup(workspace, folder.resolve())
    head = (
        f"{answer['files']} files, {size(answer['bytes'])}, of which {size(answer['new_bytes'])} new, and {answer['refs']} refs "
        f"in {answer['seconds']:.1f} s: {answer['manifest']}"
    )
    show(answer, as_json, head, *(f"note: {note}" for note in answer["notes"]), f"to bring it back: compactlm restore {folder}")
    sys.exit(EXIT_LACKING if answer["damaged"] else 0)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that `compactlm backup` has written.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="An earlier backup, by the name of its manifest.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring a workspace back from its backup: into the current folder if it is empty, or into a project that has lost something.

    Nothing that differs is written over. Exit code 1: the registry is not what was decided, or outputs are lacking.
    """
    from tasks.registry.restore import restore as bring_back

    with err.status("restoring"):
        answer = bring_back(folder.resolve(), Path.cwd(), at)
    answer["faults"] = _faults(Path(answer["workspace"]))
    lines = [
        f"{answer['workspace']}: as it was at {answer['backup']}: {answer['written']} files written, "
        f"{answer['there']} were there, {answer['refs']} decisions and records of runs ({answer['seconds']:.1f} s)"
    ]
    lacking = len(answer["lacking"])
    lines += [f"{lacking} outputs could not be brought back, such as {answer['lacking'][0]}; `dvc pull`"] if lacking else []
    lines += [f"registry: {fault}" for fault in answer["faults"]] or ["registry: as it was decided"]
    show(answer, as_json, *lines, "next: compactlm audit")
    sys.exit(EXIT_LACKING if lacking or answer["faults"] else 0)


def gc(
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="The N newest versions of each model stay in any case.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Show what nothing that stays refers to, with its bytes; with --yes, remove it.

    What stays: the N newest versions, all that an alias, a decision or an approval names, what the working tree and the tips of
    branches and tags hold, and what these descend from.
    """
    from tasks.promotion.decide import actor
    from tasks.promotion.decisions import now, read_log
    from tasks.registry.retention import planned, remove, summary

    workspace = find_project()
    with _held(workspace), err.status("looking at what refers to what"):
        log = read_log(workspace) if has_git(workspace) else []
        with planned(workspace, keep, log) as plan:
            answer = summary(plan) | {"removed": yes}
            if yes:
                remove(workspace, plan, keep, now(), actor())
    show(answer, as_json, *_gc_lines(answer, keep))


def merge_lock(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="What both sides began with.")],
    ours: Annotated[Path, typer.Argument(metavar="OURS", help="Our side; the merge is written there.")],
    theirs: Annotated[Path, typer.Argument(metavar="THEIRS", help="The other side.")],
    name: Annotated[str, typer.Argument(metavar="[PATH]", help="The file that is merged.")] = "dvc.lock",
    as_json: Json = False,
) -> None:
    """Merge dvc.lock or sources.lock entry by entry; for Git, which calls it once it is told to.

    Of a stage that both sides changed ours is kept and marked to run again. Exit code 2 leaves our side as it is.
    """
    from tasks.running.merge_lock import merge

    base_text, our_text, their_text = (path.read_bytes().decode(errors="replace") for path in (base, ours, theirs))
    merged = merge(base_text, our_text, their_text, name)
    ours.write_text(merged.text, encoding="utf-8")
    again = f"{name}: both sides changed {', '.join(merged.both)}; `dvc status` shows what runs again" if merged.both else ""
    show({"path": name, "both_changed": merged.both}, as_json, *([again] if again else []))


@contextmanager
def _held(workspace: Path) -> Iterator[None]:
    """Let no decision be made meanwhile; where there is no Git, the command says so itself."""
    from tasks.promotion.decisions import lease

    with lease(workspace) if has_git(workspace) else nullcontext():
        yield


def _gc_lines(answer: Mapping[str, Any], keep: int) -> list[str]:
    verb = "gone" if answer["removed"] else "would go"
    names = [f"{row['model']}/{row['version']} ({row['round']})" for row in answer["versions"]]
    stay = [
        f"  stays: {row['model']}/{row['version']} ({row['round']}): {', '.join(row['because'])}" for row in answer["staying"]
    ]
    parts = [f"  {part['count']} {KINDS[kind]}, {size(part['bytes'])}" for kind, part in answer["parts"].items() if part["count"]]
    lines = [f"{verb}: {', '.join(names) or 'no version'}; {size(answer['bytes'])} in all", *parts, *stay]
    lines += [f"note: {note}" for note in answer["notes"]]
    return lines if answer["removed"] or not (names or parts) else [*lines, f"to remove it: compactlm gc --keep {keep} --yes"]


def _faults(workspace: Path) -> list[str]:
    """Return where the registry here is not what was decided, as `compactlm history --check` says it."""
    from tasks.promotion.drift import registry_drift
    from tasks.registry.tracking import Tracker, is_shared, store_exists

    if is_shared() or not store_exists(workspace):
        return []
    name = params_of(workspace).registry.model_name
    with err.status("asking the registry"):
        return registry_drift(Tracker(workspace, name), name).faults
