"""Judges a round of a language model by the rules of params.yaml, on metrics recomputed from the stored blocks.

deps: rounds/<r>/evaluated, rounds/<r>/exported, evaluations of the teacher and the parent, summaries of the data
params: seed, gates; out: verdict.json
"""

from __future__ import annotations

from typing import Any

from tasks.files import read_json, write_json
from tasks.gates.causal_lm import gather_blocks
from tasks.gates.classification import Model
from tasks.gates.costs import cost_evidence, parity_evidence
from tasks.gates.data import data_validated
from tasks.gates.judge import judge
from tasks.params.causal_lm import CausalLMParams
from tasks.params.gates import rule_of
from tasks.running.stage import InPath, OutPath


def run(
    params: CausalLMParams,
    *,
    round: str,
    evaluated: InPath,
    exported: InPath,
    teacher: InPath,
    parent: InPath,
    baselines: InPath,  # noqa: ARG001 - a language model has none
    validation: InPath,
    data: InPath,
    sets: InPath,  # noqa: ARG001 - what was measured are blocks
    out: OutPath,
) -> dict[str, Any]:
    """Return the verdict and how many rules passed, failed and are held."""
    rules = [rule_of(gate) for gate in params.gates]
    places = {"student": evaluated, "teacher": teacher, "parent": parent}
    models = {
        who: Model(who, read_json(place / "quality.json")["sets"], place / "predictions")
        for who, place in places.items()
    }
    found, pairs, names = gather_blocks(rules, models)
    costs = cost_evidence({who: read_json(place / "cost.json") for who, place in places.items()})
    evidence = {**costs, **parity_evidence(read_json(exported / "parity.json")), **found}
    answers = {"data_validated": data_validated(read_json(validation), read_json(data), models["student"].sets)}
    verdict = {"round": round, **judge(rules, evidence, pairs, names, params.seed, answers)}
    write_json(out, verdict)
    results = [one["result"] for one in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}
