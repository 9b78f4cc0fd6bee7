"""Chooses the smallest round whose gates pass.

deps: rounds/<r>/verdict.json, rounds/<r>/evaluated; params: rounds; out: selection.json. The test set enters through
the verdicts alone: the best of many on the test numbers themselves would look better than it is.
"""

from __future__ import annotations

from typing import Any, Final

from tasks.files import read_json, write_json
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath

RULE: Final = "smallest round whose gates pass"


def run(params: ClassificationParams, *, rounds: InPath, out: OutPath) -> dict[str, Any]:
    """Return the selected round (None if no verdict is pass) and how many there were to choose from."""
    candidates = []
    for name in params.rounds:
        evaluated = rounds / name / "evaluated"
        validation = read_json(evaluated / "quality.json")["sets"]["validation"]
        candidates.append(
            {
                "round": name,
                "verdict": read_json(rounds / name / "verdict.json")["verdict"],
                "params_total": read_json(evaluated / "cost.json")["params_total"],
                "validation_accuracy": validation["slices"]["overall"]["accuracy"]["value"],
            }
        )
    passed = [one for one in candidates if one["verdict"] == "pass"]
    best = min(passed, key=lambda one: (one["params_total"], -one["validation_accuracy"]), default=None)
    selection = {
        "selected": best and best["round"],
        "candidates": candidates,
        "num_candidates": len(candidates),
        "rule": "smallest round whose gates pass",
        "sentence": f"{len(candidates)} rounds were compared, {len(passed)} of them passed; of these the smallest is "
        "taken, of equal ones the better on validation. The test set was asked once a round, by its gates",
    }
    write_json(out, selection)
    return {"selected": selection["selected"], "num_candidates": len(candidates)}
