"""The command that runs another over several machines, in a group that torchrun or srun started."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tasks.cli.console import Json, print_json


def join(
    command: Annotated[list[str] | None, typer.Argument(help="What the first runs: `compactlm ...`, `dvc ...`.")] = None,
    patience: Annotated[int, typer.Option(min=1, help="Seconds in which all processes must appear.")] = 300,
    as_json: Json = False,
) -> None:
    """Run a command over machines: started on each of them by torchrun or srun, with the same command line.

    The first process (rank 0) runs COMMAND, by default `compactlm run`; the others take part in each stage that trains, and
    end with it. params.yaml must have runtime.launcher.processes: external. docs/devices.md says what has to be the same on all
    machines. With --json what COMMAND prints goes to standard error.
    """
    from tasks.running.join import join as take_part

    ended = take_part(command or [], float(patience), sys.stderr if as_json else None)
    if as_json:
        print_json({"rank": ended.rank, "hosts": ended.hosts, "exit_code": ended.code})
    sys.exit(ended.code)
