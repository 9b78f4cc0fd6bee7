"""Judges a round of a language model by the rules of params.yaml, on metrics recomputed from the stored blocks.

deps: rounds/<r>/evaluated, rounds/<r>/exported, rounds/teacher/evaluated | params: seed, gates; out: verdict.json
"""

from __future__ import annotations

from typing import Any

from tasks.evaluation.block_evidence import gather_blocks
from tasks.evaluation.evidence import Model
from tasks.evaluation.gates import judge
from tasks.gate import costs, rule_of
from tasks.lineage.files import read_json, write_json
from tasks.params_causal import CausalParams
from tasks.stage import InPath, OutPath


def run(
    params: CausalParams,
    *,
    round: str,
    evaluated: InPath,
    exported: InPath,
    teacher: InPath,
    baselines: InPath,  # noqa: ARG001 - a language model has none
    out: OutPath,
) -> dict[str, Any]:
    """Return the verdict and how many rules passed, failed and are held."""
    rules = [rule_of(gate) for gate in params.gates]
    places = {"student": evaluated, "teacher": teacher}
    models = {
        who: Model(who, read_json(place / "quality.json")["sets"], place / "predictions")
        for who, place in places.items()
    }
    found, pairs, names = gather_blocks(rules, models)
    evidence = {**costs(evaluated, teacher, exported), **found}
    verdict = {"round": round, **judge(rules, evidence, pairs, names, params.seed)}
    write_json(out, verdict)
    results = [one["result"] for one in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}
