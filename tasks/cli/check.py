"""The command that looks at everything which can be known before a run, and starts nothing."""

from __future__ import annotations

import sys
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
    faults, later = seen.faults.lines, [f"{source} is looked at once it is downloaded" for source in seen.to_download]
    notes = [*seen.remarks, *later]
    for line in faults:
        err.print(f"error: {line}")
    number = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} would" if faults else "nothing would"
    show(
        {"faults": faults, "remarks": notes},
        as_json,
        *(f"note: {note}" for note in notes),
        f"{number} stop a run (looked at in {seconds:.1f} s)",
    )
    if faults:
        sys.exit(EXIT_USER_ERROR)
