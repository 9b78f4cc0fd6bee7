"""Derives again which candidate of a search is the best: from the curves of the short and the full trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.lineage.checks import Check, compare
from tasks.lineage.files import file_sha256, read_json, read_json_lines


def searched(view: Path, name: str) -> list[Check]:
    """Return where the ranking of a round's candidates does not follow from their curves, or the model is not the best one's."""
    from tasks.models.candidates import CURVES, SEARCH_FILE, ranked  # not above: an audit starts without torch

    place = view / f"artifacts/rounds/{name}"
    record, summary = (read_json(place / "trained" / file) for file in (SEARCH_FILE, "summary.json"))
    listed = {one["candidate"]: one for one in record["candidates"]}
    planned = [
        [one["candidate"], one["shape_after"]] for one in read_json(place / "pruned" / "plan.json")["candidates"]
    ]
    told = [[number, one["shape_after"]] for number, one in listed.items()]
    found = compare("search", f"{name}: candidates", planned, told, "other candidates than those that were cut")

    def measured(kind: str, numbers: list[int]) -> dict[int, float]:
        curves = {number: place / "trained" / CURVES / f"{kind}-{number}.jsonl" for number in numbers}
        best = {number: _best(path, record["metric"]) for number, path in curves.items()}
        for number, value in best.items():
            said = (listed[number][kind] or {}).get(f"best_{record['metric']}")
            found.extend(
                compare("search", f"{name}: candidate {number}: {kind}", value, said, "its curve has another number")
            )
        return best

    order = ranked(measured("short", list(listed)))
    ranks = {number: one["rank_after"] for number, one in listed.items()}
    right = {number: order.index(number) + 1 for number in listed}
    found += compare("search", f"{name}: rank_after", right, ranks, "the numbers give another order")
    kept = order[: record["keep"]]
    found += _copies(place, name, order, kept)
    finished = [number for number, one in listed.items() if one["finished"] is not None]
    found += compare(
        "search", f"{name}: finished", sorted(kept), sorted(finished), "others than the best were finished"
    )
    chosen = ranked(measured("finished", kept))[0]
    found += compare("search", f"{name}: chosen", chosen, record["chosen"], "is not the best of the finished ones")
    best = listed[chosen]
    found += compare("search", f"{name}: model_sha256", best["finished"]["model_sha256"], summary["model_sha256"],
                     "the model of the round is not the one that was chosen")  # fmt: skip
    return found + compare("search", f"{name}: shape", _shape(place / "trained/model/config.json"), best["shape_after"],
                           "the model has another shape than the chosen candidate")  # fmt: skip


def _copies(place: Path, name: str, order: list[int], kept: list[int]) -> list[Check]:
    """Return the curves that are not those which the stages `trial` and `finish` wrote; none where one stage did it all."""
    from tasks.models.candidates import CURVES
    from tasks.models.search_folder import FINISHED, TRIED

    if not (place / "search" / TRIED).exists():
        return []
    written = {f"short-{number}": place / "search" / TRIED / str(number) for number in order}
    written |= {f"finished-{number}": place / "search" / FINISHED / str(at) for at, number in enumerate(kept, start=1)}
    found: list[Check] = []
    for curve, folder in written.items():
        ours = file_sha256(folder / "steps.jsonl")
        theirs = file_sha256(place / "trained" / CURVES / f"{curve}.jsonl")
        found += compare("search", f"{name}: {curve}", ours, theirs, "is not the curve of that training")
    return found


def _best(path: Path, metric: str) -> float:
    return min(float(line[metric]) for line in read_json_lines(path) if metric in line)


def _shape(path: Path) -> Mapping[str, Any]:
    from tasks.models.architectures import adapter_of

    config = read_json(path)
    return dict(adapter_of(config).shape(config))
