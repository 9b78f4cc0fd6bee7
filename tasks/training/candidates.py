"""What comes of a search among the candidates of a round: how they rank after a short training, and which finished one is best.

`prune` cuts the candidates, each `trial` trains one for a short time, each `finish` trains one of the best with the whole
budget, and `distill` takes the best of those. They meet in the folder `search` of the round.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import FINISHED, TRIED
from tasks.files import read_json, write_json
from tasks.training.metrics import CLOSEST

SEARCH_FILE: Final = "search.json"
CURVES: Final = "search"  # folder of the curves beside it: short-<number>.jsonl, finished-<number>.jsonl
SUMMARISED: Final = ("steps", "tokens", f"best_{CLOSEST}", "model_sha256")  # of a training's summary


def ranked(values: Mapping[int, float]) -> list[int]:
    """Return the candidates' numbers, the smallest value first; of equals the one that ranked first before training."""
    return sorted(values, key=lambda number: (values[number], number))


def order_of(tried: Path, planned: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers of the `candidates` of plan.json by the KL to the teacher that each one's short training left."""
    return _closest_first({int(candidate["candidate"]): tried / str(candidate["candidate"]) for candidate in planned})


def take_best(planned: Sequence[Mapping[str, Any]], keep: int, search: Path, out: Path) -> dict[str, Any]:
    """Write the best finished candidate's outputs, search.json and the curves below `out`; return what search.json says.

    Of the best `keep` of the short trainings, it is the one whose full training left the smallest KL to the teacher.
    """
    order = order_of(search / TRIED, planned)
    before = ranked({int(candidate["candidate"]): float(candidate["loss"]) for candidate in planned})
    short = {number: search / TRIED / str(number) for number in order}
    full = {number: search / FINISHED / str(place) for place, number in enumerate(order[:keep], start=1)}
    chosen = _closest_first(full)[0]
    shutil.copytree(full[chosen], out, dirs_exist_ok=True)
    (out / CURVES).mkdir()
    for kind, folders in (("short", short), ("finished", full)):
        for number, folder in folders.items():
            shutil.copyfile(folder / "steps.jsonl", out / CURVES / f"{kind}-{number}.jsonl")
    listed = []
    for candidate in planned:
        number = int(candidate["candidate"])
        described = {key: candidate[key] for key in ("candidate", "shape_after", "params_total", "loss")}
        ranks = {"rank_before": before.index(number) + 1, "rank_after": order.index(number) + 1}
        finished = _summarised(full[number]) if number in full else None
        listed.append({**described, **ranks, "short": _summarised(short[number]), "finished": finished})
    record = {"metric": CLOSEST, "keep": keep, "chosen": chosen, "candidates": listed}
    write_json(out / SEARCH_FILE, record)
    return record


def _closest_first(trained: Mapping[int, Path]) -> list[int]:
    return ranked({number: _summarised(folder)[f"best_{CLOSEST}"] for number, folder in trained.items()})


def _summarised(folder: Path) -> dict[str, Any]:
    summary = read_json(folder / "summary.json")
    return {key: summary[key] for key in SUMMARISED}
