"""Judges a round by the rules of params.yaml, on metrics recomputed from the predictions.

deps: rounds/<r>/evaluated, rounds/<r>/exported, evaluations of the teacher, the parent and the baselines, data/sets,
summaries of the data; params: seed, gates, evaluate.calibration_bins, data.labels; out: verdict.json. What does not
agree with its own predictions, or was measured on other rows than the teacher, is held, not passed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from tasks.evaluation.costs import cost_evidence, parity_evidence
from tasks.evaluation.data_checks import data_validated, no_overlap
from tasks.evaluation.evidence import Model, gather
from tasks.evaluation.gates import judge
from tasks.evaluation.rules import Answer, Check, Rule
from tasks.lineage.files import read_json, write_json
from tasks.params import Params
from tasks.params_gates import Gate
from tasks.stage import InPath, OutPath

RIVAL: Final = "tfidf_logistic"
LEARNT: Final = ("train", "transfer", "calibration")


def run(
    params: Params,
    *,
    round: str,
    evaluated: InPath,
    exported: InPath,
    teacher: InPath,
    parent: InPath,
    baselines: InPath,
    validation: InPath,
    data: InPath,
    sets: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the verdict and how many rules passed, failed and are held."""
    rules = [rule_of(gate) for gate in params.gates]
    folders = {"student": evaluated, "teacher": teacher, "parent": parent}
    models = {who: Model(who, read_json(place / "quality.json")["sets"], place / "predictions")
              for who, place in folders.items()}  # fmt: skip
    rivals = read_json(baselines / "quality.json")["rivals"]
    models[RIVAL] = Model(RIVAL, rivals[RIVAL]["sets"], baselines / "predictions" / RIVAL)
    found, pairs, names = gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)
    costs = cost_evidence({who: read_json(place / "cost.json") for who, place in folders.items()})
    evidence = {**costs, **parity_evidence(read_json(exported / "parity.json")), **found}
    answers = _answers(models["student"], read_json(validation), read_json(data), sets)
    verdict = {"round": round, **judge(rules, evidence, pairs, names, params.seed, answers)}
    write_json(out, verdict)
    results = [one["result"] for one in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}


def rule_of(gate: Gate) -> Rule | Check:
    """Return a gate of params.yaml as a plain rule."""
    if gate.metric is None:
        return Check(str(gate.check), gate.severity)
    bound = gate.bound
    plain = Rule(gate.metric, gate.set, gate.slice or "overall", gate.versus, bound, float(getattr(gate, bound)),
                 gate.severity, gate.slices, gate.test, gate.confidence)  # fmt: skip
    given = {name: getattr(gate, name) for name in ("prove", "min_support", "resamples")}
    return replace(plain, **{name: value for name, value in given.items() if value is not None})


def _answers(student: Model, validation: dict[str, Any], prepared: dict[str, Any], sets: Path) -> dict[str, Answer]:
    """Return what the checks of data find."""
    measured: dict[str, Collection[str] | None] = {}
    for name in student.sets:
        rows = student.rows(name)
        measured[name] = None if rows is None else set(rows["row_id"])
    learnt: dict[str, Collection[str] | None] = {}
    for name in LEARNT:
        place = sets / f"{name}.parquet"
        learnt[name] = set(pq.read_table(place, columns=["row_id"])["row_id"].to_pylist()) if place.is_file() else None
    return {
        "data_validated": data_validated(validation, prepared, student.sets),
        "no_overlap": no_overlap(validation, learnt, measured),
    }
