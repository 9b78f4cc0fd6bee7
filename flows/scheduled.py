"""The flow `scheduled-run`: one tick of a schedule of a ref, in a worktree of its own.

It finds out whether anything has to run, and has the code of the ref do that as its own process: `compactlm run --commit`.
`compactlm schedule --cron "0 2 * * *" --ref origin/main` serves it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections import deque
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from flows.server import API
from tasks.children import own_path, running
from tasks.errors import ResourceError, UserError
from tasks.registry.reading import default_uri
from tasks.registry.store import OWN
from tasks.registry.tracking import is_shared
from tasks.report.markdown import Markdown, bullets, code, plain
from tasks.running.scheduled import Kept, Outcome, Schedule, check_out, find_start, is_unchanged, keep, only_tick
from tasks.running.servers import TRACKING

END_SECONDS: Final = 20.0  # that a run has to end its stages
LAST_LINES: Final = 8
COMMAND: Final = ("tasks.cli", "run", "--commit", "--json")
# exit code of `compactlm run` -> how it ended; another one is a fault
OUTCOMES: Final[dict[int, Outcome]] = {0: "completed", 3: "nothing passed", 4: "not recorded"}
STATES: Final[dict[Outcome, str]] = {
    "no change": "NoChange",
    "completed": "Completed",
    "nothing passed": "NothingPassed",
    "not recorded": "NotRecorded",
}
console = logging.getLogger("compactlm")


@flow(name="scheduled-run", persist_result=False, validate_parameters=False)
def scheduled_run(workspace: str, name: str, ref: str, accept_data: bool = False) -> State[Any]:
    """Return NoChange, Completed, NothingPassed or NotRecorded with what was kept; Failed with the reason.

    The checkout in `workspace` is not touched: the ref is run below its `.compactlm/scheduled/`. `accept_data`: whatever
    `validate_data.drift` says of new data.
    """
    schedule = Schedule(Path(workspace).absolute(), name, ref)
    with ExitStack() as held:
        try:
            held.enter_context(only_tick(schedule))
        except ResourceError as error:
            return Completed(name="Skipped", message=str(error))
        try:
            return _tick(schedule, accept_data)
        except UserError as error:  # its words are all that a person needs
            return Failed(message=str(error))


def _tick(schedule: Schedule, accept_data: bool) -> State[Any]:
    start = find_start(schedule)
    if is_unchanged(schedule, start):
        return Completed(
            name=STATES["no change"], message=f"{schedule.ref} is at {start.commit[:12]} as before, and so is the data"
        )
    place = check_out(schedule, start.base)
    get_run_logger().info("%s is at %s; running it in %s", schedule.ref, start.commit[:12], place)
    exit_code, answer, words = run_there(schedule, place, accept_data)
    outcome = "no change" if answer.get("state") == "no change" and exit_code == 0 else OUTCOMES.get(exit_code)
    if outcome is None:
        return Failed(message=answer.get("error") or (words or [""])[-1] or f"`compactlm run` ended with code {exit_code}")
    kept = keep(schedule, start, outcome, datetime.now(UTC).isoformat(timespec="seconds"))
    line = f"{answer['sentence']}; {schedule.branch} is at {kept['head'][:12]}"
    if "unpushed" in kept:
        line += f"; not pushed yet, the next run tries again: {kept['unpushed']}"
    create_markdown_artifact(_page(schedule, kept, answer), key="scheduled", description=plain(schedule.branch))
    name = "NotPushed" if "unpushed" in kept and outcome == "completed" else STATES[outcome]
    return Completed(name=name, message=line, data={**kept, "exit_code": exit_code})


def run_there(schedule: Schedule, place: Path, accept_data: bool) -> tuple[int, dict[str, Any], list[str]]:
    """Return exit code, answer and last lines of a run by the code in a worktree; it ends when we end."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT__", "PYTHONSAFEPATH"))}
    env |= {"PATH": own_path(), API: str(PREFECT_API_URL.value()), TRACKING: default_uri(schedule.home)}
    if not is_shared():  # the registry of the workspace, whichever of its worktrees a model comes from
        (schedule.home / OWN).mkdir(parents=True, exist_ok=True)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    last: deque[str] = deque(maxlen=LAST_LINES)
    command = [*COMMAND, "--accept-data"] if accept_data else COMMAND
    with running(command, END_SECONDS, cwd=place, env=env, **pipes) as child:
        teller = threading.Thread(target=_tell, args=(child.stderr, last, get_run_logger()))
        teller.start()
        said = child.stdout.read() if child.stdout is not None else ""
        teller.join()
        exit_code = child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    try:
        answer = json.loads(said)
    except ValueError:
        answer = {}
    return exit_code, answer if isinstance(answer, dict) else {}, list(last)


def _tell(lines: IO[str], last: deque[str], logger: Any) -> None:
    for line in map(str.rstrip, lines):
        if line:
            last.append(line)
            logger.info(line)
            console.info(line)


def _page(schedule: Schedule, kept: Kept, answer: dict[str, Any]) -> str:
    """Return what the page of a tick shows."""
    facts = [
        Markdown(f"ref: {code(schedule.ref)} at {code(kept['commit'][:12])}"),
        Markdown(f"result: {code(schedule.branch)} at {code(kept['head'][:12])}"),
        Markdown(f"worktree: {code(schedule.place)}"),
    ]
    if "unpushed" in kept:
        facts.append(Markdown(f"not pushed yet: {plain(kept['unpushed'])}"))
    rules = [f"{rule['round']} {rule['words']}: {rule['sentence']}" for rule in answer["result"]["rules"]]
    return f"## {plain(answer['sentence'])}\n\n{bullets(facts)}\n{bullets(rules)}\nNext: {code(answer['result']['next'])}\n"
