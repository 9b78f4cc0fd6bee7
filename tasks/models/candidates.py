"""A search among the candidates of a round: a short training of each, ranked by what came of it, the best ones finished.

What is done lies in the scratch of the search until its end, so a killed search goes on with the candidate it stood at.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.lineage.files import read_json, write_json
from tasks.models.better import CLOSEST

# Trains a candidate, given by its number, writes model/, checkpoints/, steps.jsonl and summary.json into a folder.
Train = Callable[[int, Path], Any]

SEARCH_FILE: Final = "search.json"
CURVES: Final = "search"  # folder of the curves: short-<number>.jsonl, finished-<number>.jsonl
TOLD: Final = ("steps", "tokens", f"best_{CLOSEST}", "model_sha256")  # of a training's summary


def search(planned: Sequence[Mapping[str, Any]], keep: int, short: Train, full: Train, scratch: Path, out: Path) -> Any:
    """Write the outputs of the best candidate's full training, search.json and the curves below `out`; return search.json.

    `planned` are the `candidates` of plan.json. They rank by the KL to the teacher on the validation set that a short training
    of each leaves; the best `keep` of them are trained in full, and of these the one with the smallest KL is taken.
    """
    numbers = [int(one["candidate"]) for one in planned]
    tried = {number: _once(number, scratch / f"short-{number}", short, weights=False) for number in numbers}
    order = ranked({number: summary[f"best_{CLOSEST}"] for number, summary in tried.items()})
    finished = {number: _once(number, scratch / f"finished-{number}", full) for number in order[:keep]}
    chosen = ranked({number: summary[f"best_{CLOSEST}"] for number, summary in finished.items()})[0]
    shutil.copytree(scratch / f"finished-{chosen}", out, dirs_exist_ok=True)
    (out / CURVES).mkdir()
    for kind, summaries in (("short", tried), ("finished", finished)):
        for number in summaries:
            shutil.copyfile(scratch / f"{kind}-{number}" / "steps.jsonl", out / CURVES / f"{kind}-{number}.jsonl")
    record = {
        "metric": CLOSEST,
        "keep": keep,
        "chosen": chosen,
        "candidates": [
            {
                **{key: one[key] for key in ("candidate", "shape_after", "params_total", "loss")},
                "rank_before": place,
                "rank_after": order.index(number) + 1,
                "short": _told(tried[number]),
                "finished": _told(finished[number]) if number in finished else None,
            }
            for place, (number, one) in enumerate(zip(numbers, planned, strict=True), start=1)
        ],
    }
    write_json(out / SEARCH_FILE, record)
    return record


def ranked(values: Mapping[int, float]) -> list[int]:
    """Return the candidates' numbers, the smallest value first; of equals the one that ranked first before training."""
    return sorted(values, key=lambda number: (values[number], number))


def _once(number: int, folder: Path, train: Train, weights: bool = True) -> dict[str, Any]:
    """Return the summary of a training, done now unless it is done; it stands in `folder` whole or not at all."""
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        train(number, partial)
        if not weights:
            shutil.rmtree(partial / "model")
            shutil.rmtree(partial / "checkpoints")
        partial.rename(folder)
    summary: dict[str, Any] = read_json(folder / "summary.json")
    return summary


def _told(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in TOLD}
