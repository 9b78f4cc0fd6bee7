"""The command that looks at everything which can be known before a run, and starts nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tasks.cli.console import Json, err, show
from tasks.cli.project import find_project
from tasks.errors import EXIT_USER_ERROR


def check(
    params: Annotated[Path | None, typer.Option(help="Look at this description of a run instead of params.yaml.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As if `run` changed it.")] = None,
    as_json: Json = False,
) -> None:
    """Say all that would stop a run: in params.yaml, the teacher, the data and on this machine. Nothing is changed.

    Exit code 2 if anything would. `compactlm run` looks at the same first.
    """
    from tasks.params.edit import planned_text
    from tasks.running.check import look

    started = time.perf_counter()
    workspace = find_project()
    seen = look(workspace, planned_text(workspace, params, set_ or []))
    seconds = time.perf_counter() - started
    faults, notes = seen.faults.lines, [*seen.remarks, *(f"{key}: looked at once it is downloaded" for key in seen.to_download)]
    for line in faults:
        err.print(f"error: {line}", markup=False)
    verdict = f"{len(faults)} would stop a run" if faults else "nothing would stop a run"
    show({"faults": faults, "remarks": notes}, as_json, *(f"note: {note}" for note in notes), f"{verdict} ({seconds:.1f} s)")
    if faults:
        raise typer.Exit(EXIT_USER_ERROR)
