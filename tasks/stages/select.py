"""Chooses the smallest round whose gates pass.

The test set enters through the verdicts alone: the best of many on the test numbers themselves would look better than it is.
"""

from __future__ import annotations

from typing import Any, Final

from tasks.files import read_json, write_json
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.running.stage import InPath, OutPath

RULE: Final = "smallest round whose gates pass"
# what parts rounds of one size, and the sign with which less of it is better
TIES: Final = {CLASSIFICATION: ("accuracy", -1), CAUSAL_LM: ("perplexity", 1)}


def run(params: Params, *, rounds: InPath, out: OutPath) -> dict[str, Any]:
    """Return the selected round (None if no verdict is pass) and how many there were to choose from."""
    metric, sign = TIES[params.task]
    candidates = []
    for name in params.rounds:
        evaluated = rounds / name / "evaluated"
        validation = read_json(evaluated / "quality.json")["sets"]["validation"]
        candidates.append(
            {
                "round": name,
                "verdict": read_json(rounds / name / "verdict.json")["verdict"],
                "params_total": read_json(evaluated / "cost.json")["params_total"],
                f"validation_{metric}": validation["slices"]["overall"][metric]["value"],
            }
        )
    passed = [each for each in candidates if each["verdict"] == "pass"]
    best = min(passed, key=lambda each: (each["params_total"], sign * each[f"validation_{metric}"]), default=None)
    choice = {"selected": best and best["round"], "num_candidates": len(candidates)}
    selection = {**choice, "candidates": candidates, "rule": RULE}
    if params.task == CLASSIFICATION:
        selection["sentence"] = (
            f"{len(candidates)} rounds were compared, {len(passed)} of them passed; of these the smallest is "
            "taken, of equal ones the better on validation. The test set was asked once a round, by its gates"
        )
    write_json(out, selection)
    return choice
