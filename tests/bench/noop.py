"""Seconds of `dvc repro` and of `compactlm run` when every stage is up to date, and of the commands that only show."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tasks.cli.ending import EXIT_NOTHING_PASSED
from tasks.errors import StageError, UserError
from tasks.running.dvc import pending, read_graph

SHOWING = {"check": "check", "status": "status", "models": "models", "lineage": "lineage", "help": "--help"}
COMPACTLM = [sys.executable, "-c", "from tasks.cli.app import main; main()"]
COMMANDS = {
    "dvc_repro": [sys.executable, "-m", "dvc", "repro"],
    "compactlm_run": [*COMPACTLM, "run"],
    **{f"compactlm_{name}": [*COMPACTLM, word] for name, word in SHOWING.items()},
}


def measure(workspace: Path, turns: int) -> dict[str, Any]:
    """Return the median seconds of each command over `turns`; UserError when there is work to do."""
    stages = read_graph(workspace)
    waiting = pending(workspace, stages)
    if waiting:
        raise UserError(f"noop: {len(waiting)} stages are not up to date ({waiting[0]}, ...); `compactlm run` first")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(turns):
        for name, command in COMMANDS.items():
            seconds[name].append(_time(name, command, workspace))
    medians = {f"{name}_seconds": round(statistics.median(taken), 2) for name, taken in seconds.items()}
    return {"stages": len(stages), "turns": turns, **medians}


def _time(name: str, command: list[str], workspace: Path) -> float:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    began = time.perf_counter()
    done = subprocess.run(command, cwd=workspace, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, EXIT_NOTHING_PASSED):  # which is no fault of the command
        raise StageError(name, done.stderr)
    return time.perf_counter() - began
