"""Processes that promote, for tests that start many of them or kill one at a named step.

Importing MLflow takes seconds, so one process imports it and forks: each line it reads is a JSON list of commands, all
started at once, and it answers with a JSON list of their exit codes and outputs. A command is
WORKSPACE MODEL VERSION [--approval] [--kill STEP WHEN CALL].
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.params.file import load_params
from tasks.promotion import decide as promotion
from tasks.promotion.proposals import with_approval
from tasks.registry.tracking import Tracker, preload

STEPS = (
    "reconcile_locked",
    "describe",
    "content",
    "commit",
    "mirror",
    "settle",
    "point",
    "differences",
    "describe_newest",
    "mark",
)


def arm(step: str, when: str, call: str) -> None:
    """Let the process die by SIGKILL before or after a call (1: the first) of a step within a promotion."""
    real, left = getattr(promotion, step), int(call)

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(promotion, step, deadly)


def promote(workspace: str, name: str, version: str, *options: str) -> str:
    """Promote a version and return the number of the decision."""
    tracker = Tracker(Path(workspace), name)
    judge: promotion.Judge = passing
    if "--approval" in options:
        judge = with_approval(passing, tracker, load_params(tracker.workspace / "params.yaml"), name)
    if "--kill" in options:
        arm(*options[options.index("--kill") + 1 :][:3])
    ask = promotion.Request("promote", version, "", f"process {os.getpid()}")
    return str(promotion.decide(tracker, name, ask, judge)["number"])


def passing(_candidate: Any, _champion: Any) -> dict[str, Any]:
    return {"verdict": "pass", "sentence": "as the test wants", "rules": [], "evidence": {}}


def fork(command: list[str]) -> tuple[int, int]:
    """Return the id of a child at work on a command, and the end of a pipe with what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code, words = 0, ""
    try:
        words = promote(*command)
    except Exception as error:  # noqa: BLE001 - the parent shows it
        code, words = 1, repr(error)
    os.write(writing, words.encode())
    os._exit(code)


def main() -> None:
    preload()
    for line in sys.stdin:
        ends = []
        for child, reading in [fork(command) for command in json.loads(line)]:
            with os.fdopen(reading) as pipe:
                words = pipe.read()
            ends.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), words])
        print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
