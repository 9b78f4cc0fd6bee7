"""Judges a round by the rules of params.yaml, on metrics recomputed from the predictions.

What does not agree with its own predictions, or was measured on other rows than the teacher, is held, not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from tasks.artifacts import GROUP, every_set
from tasks.files import read_json, write_json
from tasks.gates.causal_lm import gather_blocks
from tasks.gates.classification import gather
from tasks.gates.costs import cost_evidence, parity_evidence
from tasks.gates.data import data_validated, group_name, no_overlap
from tasks.gates.evidence import Gathered, Model
from tasks.gates.judge import judge
from tasks.gates.rules import Answer, Asked, Rule
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.gates import rule_of
from tasks.running.stage import InPath, OutPath

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
    models = {
        who: Model(who, every_set(read_json(folder / "quality.json")), folder / "predictions") for who, folder in folders.items()
    }
    for rival, entry in read_json(baselines / "quality.json")["rivals"].items():
        models[rival] = Model(rival, entry["sets"], baselines / "predictions" / rival)
    measured, pairs, names = EVIDENCE[params.task](params, rules, models)
    costs = cost_evidence({who: read_json(folder / "cost.json") for who, folder in folders.items()})
    evidence = {**costs, **parity_evidence(read_json(exported / "parity.json")), **measured}
    asked = {rule.name for rule in rules if isinstance(rule, Asked)}
    answers = _answers(asked, models["student"], (read_json(validation), read_json(data)), sets)
    verdict = {"round": round, **judge(rules, evidence, pairs, names, params.seed, answers)}
    write_json(out, verdict)
    results = [rule["result"] for rule in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}


def _of_rows(params: ClassificationParams, rules: list[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    return gather(rules, models, len(params.data.labels), params.evaluate.calibration_bins)


def _of_blocks(_params: CausalLMParams, rules: list[Rule | Asked], models: Mapping[str, Model]) -> Gathered:
    return gather_blocks(rules, models)


EVIDENCE: Final[dict[str, Callable[..., Gathered]]] = {CLASSIFICATION: _of_rows, CAUSAL_LM: _of_blocks}


def _answers(
    asked: Collection[str], student: Model, summaries: tuple[dict[str, Any], dict[str, Any]], sets: Path
) -> dict[str, Answer]:
    """Return what the checks of data that are asked find; `summaries` are of the validated and of the prepared data."""
    validation, prepared = summaries
    answers = {}
    if "data_validated" in asked:
        answers["data_validated"] = data_validated(validation, prepared, student.sets)
    if "no_overlap" in asked:
        measured = {name: student.rows(name) for name in student.sets}
        of_pairs = any(rows is not None and GROUP in rows for rows in measured.values())
        answers["no_overlap"] = no_overlap(
            validation,
            {name: _ids(sets / f"{name}.parquet") for name in LEARNT},
            {
                name: None if rows is None else {*rows["row_id"], *map(group_name, rows.get(GROUP, ()))}
                for name, rows in measured.items()
            },
            of_pairs,
        )
    return answers


def _ids(path: Path) -> set[str] | None:
    """Return the ids of the rows of a set, of pairs also the names of their groups; None without a file."""
    if not path.is_file():
        return None
    names = pq.read_schema(path).names
    table = pq.read_table(path, columns=["row_id", *([GROUP] if GROUP in names else [])])
    groups = table[GROUP].to_pylist() if GROUP in names else []
    return {*table["row_id"].to_pylist(), *map(group_name, groups)}
