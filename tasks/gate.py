"""Judges a round by the rules of params.yaml, on metrics recomputed from the predictions.

deps: rounds/<r>/evaluated, rounds/<r>/exported, rounds/teacher/evaluated, baselines
params: seed, gates, evaluate.calibration_bins, data.labels; out: verdict.json. What does not agree with its own
predictions, or was measured on other rows than the teacher, is held, not passed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tasks.evaluation.evidence import Model, gather
from tasks.evaluation.gates import judge
from tasks.evaluation.rules import Key, Measurement, Rule
from tasks.lineage.files import read_json, write_json
from tasks.params import Gate, Params
from tasks.stage import InPath, OutPath

_RIVAL: Final = "tfidf_logistic"


def run(
    params: Params,
    *,
    round: str,
    evaluated: InPath,
    exported: InPath,
    teacher: InPath,
    baselines: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the verdict and how many rules passed, failed and are held."""
    rules = [rule_of(gate) for gate in params.gates]
    rivals = read_json(baselines / "quality.json")["rivals"]
    models = {
        "student": Model("student", read_json(evaluated / "quality.json")["sets"], evaluated / "predictions"),
        "teacher": Model("teacher", read_json(teacher / "quality.json")["sets"], teacher / "predictions"),
        _RIVAL: Model(_RIVAL, rivals[_RIVAL]["sets"], baselines / "predictions" / _RIVAL),
    }
    found, pairs, names = gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
    evidence = {**costs(evaluated, teacher, exported), **found}
    verdict = {"round": round, **judge(rules, evidence, pairs, names, params.seed)}
    write_json(out, verdict)
    results = [one["result"] for one in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}


def rule_of(gate: Gate) -> Rule:
    """Return a gate of params.yaml as a plain rule."""
    bound = gate.bound
    plain = Rule(gate.metric, gate.set, gate.slice or "overall", gate.versus, bound, float(getattr(gate, bound)),
                 gate.severity, gate.slices, gate.test, gate.confidence)  # fmt: skip
    given = {name: getattr(gate, name) for name in ("prove", "min_support", "resamples")}
    return replace(plain, **{name: value for name, value in given.items() if value is not None})


def costs(evaluated: Path, teacher: Path, exported: Path) -> dict[Key, Measurement]:
    """Return what does not depend on rows: sizes, FLOPs, latency, differences of exported models."""
    mine, theirs = read_json(evaluated / "cost.json"), read_json(teacher / "cost.json")
    parity = read_json(exported / "parity.json")
    found: dict[Key, Measurement] = {}
    for metric in ("params_total", "params_non_embedding", "size_bytes", "flops_per_example", "flops_per_token"):
        found["student", metric, None, "overall"] = Measurement(mine.get(metric))
        found["teacher", metric, None, "overall"] = Measurement(theirs.get(metric))
    latency = mine.get("latency", {}).get("torch", {}).get("1", {})  # both in one process, interleaved
    found["student", "latency_ms_p50_batch_1", None, "overall"] = Measurement(latency.get("latency_ms_p50"))
    found["teacher", "latency_ms_p50_batch_1", None, "overall"] = Measurement(latency.get("teacher_latency_ms_p50"))
    for metric in ("load_back_max_difference", "onnx_max_difference", "cache_mismatched_tokens"):
        found["student", metric, None, "overall"] = Measurement(parity.get(metric))
    return found
