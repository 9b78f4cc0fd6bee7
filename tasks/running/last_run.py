"""The times of the last run that had work to do: where they went, and how much of them was not computing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tasks.files import read_json, write_json

PLACE: Final = Path(".compactlm") / "last_run.json"
NOT_RECORDED: Final = "not recorded"  # state of a run in which all stages are done, and MLflow did not take the record


def describe(workspace: Path, outcomes: Mapping[str, str], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return one row a stage: name, state, seconds it took here, and what its receipt says of an execution."""
    rows = []
    for name, state in outcomes.items():
        row: dict[str, Any] = {"name": name, "state": state, "seconds": round(seconds.get(name, 0.0), 2)}
        receipt = workspace / "artifacts" / "receipts" / f"{name}.json"
        # The receipt of a stage that was skipped or restored tells of an earlier run.
        if state == "executed" and receipt.exists():
            facts = read_json(receipt)
            row |= {key: facts[key] for key in ("started_at", "startup_seconds", "compute_seconds")}
        rows.append(row)
    return rows


def write_last_run(
    workspace: Path, state: str, stages: list[dict[str, Any]], wall_seconds: float, undelivered: str = ""
) -> dict[str, Any]:
    """Write and return the record of a run: wall time, the time in which a stage computed, and the overhead: the rest.

    `undelivered`: why MLflow lacks it, and the command that records it; empty when nothing is lacking.
    """
    compute = computing_seconds(stages)
    record = {
        "state": state,
        "stages": stages,
        "wall_seconds": round(wall_seconds, 2),
        "compute_seconds": round(compute, 2),
        "overhead_seconds": round(wall_seconds - compute, 2),
        "overhead_share": round((wall_seconds - compute) / wall_seconds, 4),
    }
    record |= {"undelivered": undelivered} if undelivered else {}
    write_json(workspace / PLACE, record)
    return record


def computing_seconds(stages: Iterable[Mapping[str, Any]]) -> float:
    """Return the seconds in which at least one stage computed; two that computed side by side count once."""
    total, end = 0.0, 0.0
    timed = [one for one in stages if "compute_seconds" in one]
    for begin, seconds in sorted(
        (datetime.fromisoformat(one["started_at"]).timestamp(), one["compute_seconds"]) for one in timed
    ):
        total += max(0.0, begin + seconds - max(begin, end))
        end = max(end, begin + seconds)
    return total


def read_last_run(workspace: Path) -> dict[str, Any] | None:
    """Return the record of the last run that had work to do, or None."""
    path = workspace / PLACE
    return dict(read_json(path)) if path.exists() else None


def sentence(record: Mapping[str, Any]) -> str:
    """Return the overhead in words."""
    share = 100 * record["overhead_share"]
    return f"overhead {record['overhead_seconds']:.0f} s of {record['wall_seconds']:.0f} s, {share:.1f} %"
