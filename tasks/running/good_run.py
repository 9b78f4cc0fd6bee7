"""The last run that ended well: when, of which commit, and how long ago; what whoever watches a project asks for first.

Well means that every stage is up to date and MLflow has the record, also where nothing was to do: then the schedule works.
Whether a round passes its gates is another question, which `compactlm run` answers by its exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypedDict

from tasks.files import read_json, write_json

PLACE: Final = Path(".compactlm") / "last_good_run.json"
SKIPPED: Final = "skipped"


class GoodRun(TypedDict):
    """`worked`: whether a stage had to run or to be restored; `commit`: empty outside of Git."""

    ended: str
    age_seconds: float
    commit: str
    worked: bool


def write_good_run(workspace: Path, outcomes: Mapping[str, str], commit: str) -> None:
    """Keep that a run has ended well just now. `outcomes`: stage -> how it was brought up to date."""
    worked = any(outcome != SKIPPED for outcome in outcomes.values())
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(workspace / PLACE, {"ended": ended, "commit": commit, "worked": worked})


def read_good_run(workspace: Path, now: datetime | None = None) -> GoodRun | None:
    """Return the last run that ended well in this workspace, with its age; None where none has, or its file holds no record."""
    try:
        kept: Any = read_json(workspace / PLACE)
        ended = datetime.fromisoformat(kept["ended"])
        age = ((now or datetime.now(UTC)) - ended).total_seconds()
        return GoodRun(ended=kept["ended"], age_seconds=round(age, 1), commit=str(kept["commit"]), worked=bool(kept["worked"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def good_run_words(run: GoodRun | None) -> str:
    """Return in words how long ago the last good run was."""
    if run is None:
        return "none is known here"
    number, unit = run["age_seconds"], "seconds"
    for size, larger in ((60, "minutes"), (60, "hours"), (24, "days")):
        if number < 2 * size:
            break
        number, unit = number / size, larger
    commit = f", of commit {run['commit'][:12]}" if run["commit"] else ""
    return f"{number:.0f} {unit} ago{commit}" + ("" if run["worked"] else ", with nothing to do")
