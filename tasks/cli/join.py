"""The command that runs another over several machines, in a group that torchrun or srun started."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def join(
    command: Annotated[list[str] | None, typer.Argument(help="What the first runs: `compactlm ...`, `dvc ...`.")] = None,
    patience: Annotated[int, typer.Option(min=1, help="Seconds in which all processes must appear.")] = 300,
) -> None:
    """Run a command over machines: started on each of them by torchrun or srun, with the same command line.

    The first process (rank 0) runs COMMAND, by default `compactlm run`; the others take part in each stage that trains, and
    end with it. params.yaml must have runtime.launcher.processes: external. docs/devices.md says what has to be the same on all
    machines.
    """
    from tasks.running.join import join as take_part

    sys.exit(take_part(command or [], float(patience)))
