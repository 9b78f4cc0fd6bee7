"""Chooses the smallest round whose gates pass.

deps: rounds/<r>/verdict.json, rounds/<r>/evaluated; params: rounds; out: selection.json
"""

from __future__ import annotations

from typing import Any

from tasks.files import read_json, write_json
from tasks.params.causal_lm import CausalLMParams
from tasks.running.stage import InPath, OutPath
from tasks.stages.select import RULE


def run(params: CausalLMParams, *, rounds: InPath, out: OutPath) -> dict[str, Any]:
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
                "validation_perplexity": validation["slices"]["overall"]["perplexity"]["value"],
            }
        )
    passed = [one for one in candidates if one["verdict"] == "pass"]
    best = min(passed, key=lambda one: (one["params_total"], one["validation_perplexity"]), default=None)
    selected = best and best["round"]
    write_json(out, {"selected": selected, "candidates": candidates, "num_candidates": len(candidates), "rule": RULE})
    return {"selected": selected, "num_candidates": len(candidates)}
