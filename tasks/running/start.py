"""What comes before a run: params and sources are looked at, so that bad input stops here and leaves nothing half-made."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tasks.errors import ParamsError, ResourceError
from tasks.files import project_of
from tasks.params.base import Params
from tasks.params.file import load_params, read_text

AUDIT: Final = "audit"  # what the lock of a workspace says while one reads it, or a backup does


def find_workspace(start: Path) -> Path:
    """Return the project that holds `start`: the nearest folder upwards with dvc.yaml and params.yaml."""
    if folder := project_of(start):
        return folder
    raise ParamsError(f"{start}: no dvc.yaml and params.yaml here or above; change into a compactlm project")


def check_run(workspace: Path, text: str | None = None) -> Params:
    """Return the params of `text`, or of params.yaml; raise a UserError with all that would stop the run later."""
    from tasks.running.check import look

    text = read_text(workspace / "params.yaml") if text is None else text
    seen = look(workspace, text)
    params = seen.checked()
    return look(workspace, text, download=True).checked() if seen.to_download else params


def prepare_run(workspace: Path, *, checked: bool = False) -> Params:
    """Return the params of a run whose input has been checked (unless it was already), with sources.lock up to date."""
    from tasks.data.sources import refresh_lock

    params = load_params(workspace / "params.yaml") if checked else check_run(workspace)
    _forget_searches(params, workspace)
    for line in refresh_lock(params.sources(), workspace / "sources.lock"):
        logging.getLogger("compactlm").info("sources.lock: %s", line)
    return params


def _forget_searches(params: Params, workspace: Path) -> None:
    """Remove what searches with more candidates have left: DVC would take it for what the stages after them read."""
    from tasks.artifacts import drop_leftovers

    for name, target in params.rounds.items():
        section = getattr(target, "search", None)
        candidates, keep = (0, 0) if section is None else (section.candidates, section.keep)
        drop_leftovers(workspace / "artifacts" / "rounds" / name / "search", candidates, keep)


@contextmanager
def only_run(workspace: Path, kind: str = "run") -> Iterator[None]:
    """Hold the workspace for one run or audit; ResourceError when a run works in it, an audit is waited for."""
    place = workspace / ".compactlm" / "run.lock"
    try:
        place.parent.mkdir(exist_ok=True)
        file = place.open("a+", encoding="utf-8")
    except OSError as error:
        if kind != AUDIT:
            raise ResourceError(f"{place}: cannot be written ({error.strerror}); a run writes into its project") from None
        yield  # nobody can run on a disk that cannot be written
        return
    with file:
        try:
            # The system gives the lock back when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            if file.read() != AUDIT:
                raise ResourceError(f"{workspace}: another run is under way here; wait for it or stop it") from None
            logging.getLogger("compactlm").info("waiting for an audit or a backup to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(kind)
        file.flush()
        yield
