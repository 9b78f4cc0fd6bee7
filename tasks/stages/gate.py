"""Judges a round by the rules of params.yaml, on metrics recomputed from the predictions.

deps: rounds/<r>/evaluated, rounds/<r>/exported, evaluations of the teacher, the parent and the baselines, data/sets,
summaries of the data; params: seed, gates, evaluate.calibration_bins, data.labels; out: verdict.json. What does not
agree with its own predictions, or was measured on other rows than the teacher, is held, not passed.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from tasks.files import read_json, write_json
from tasks.gates.classification import Model, gather
from tasks.gates.costs import cost_evidence, parity_evidence
from tasks.gates.data import data_validated, no_overlap
from tasks.gates.judge import judge
from tasks.gates.rules import Answer
from tasks.params.classification import ClassificationParams
from tasks.params.gates import rule_of
from tasks.running.stage import InPath, OutPath

RIVAL: Final = "tfidf_logistic"
LEARNT: Final = ("train", "transfer", "calibration")


def run(
    params: ClassificationParams,
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
    models = {
        who: Model(who, read_json(place / "quality.json")["sets"], place / "predictions")
        for who, place in folders.items()
    }
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
