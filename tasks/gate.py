"""Judges a round by the rules of params.yaml, on metrics recomputed from the predictions.

deps: rounds/<r>/evaluated, rounds/<r>/exported, rounds/teacher/evaluated, baselines
params: gates, evaluate.calibration_bins, data.labels; out: verdict.json. What does not agree with its own predictions,
or was measured on other rows than the teacher, is held, not passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from tasks.evaluation.gates import BOUNDS, METRICS, Key, Measurement, Rule, judge
from tasks.evaluation.quality import accuracy, agreement, calibration_error, macro_f1, nll_nats_per_example
from tasks.lineage.files import read_json, write_json
from tasks.params import Gate, Params
from tasks.stage import InPath, OutPath

TOLERANCE: Final = 1e-6
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
    folders = {
        "student": (evaluated, read_json(evaluated / "quality.json")["sets"]),
        "teacher": (teacher, read_json(teacher / "quality.json")["sets"]),
        _RIVAL: (baselines, read_json(baselines / "quality.json")["rivals"][_RIVAL]["sets"]),
    }
    evidence: dict[Key, Measurement] = dict(_costs(evaluated, teacher, exported))
    for rule in rules:
        if not METRICS[rule.metric]:
            continue
        for who in ("student", rule.versus):
            if who is not None:
                found = _quality(who, rule, folders, len(params.data.labels), params.evaluate.calibration_bins)
                evidence[who, rule.metric, rule.set, rule.slice] = found
    verdict = {"round": round, **judge(rules, evidence)}
    write_json(out, verdict)
    results = [one["result"] for one in verdict["rules"]]
    return {"verdict": verdict["verdict"], **{name: results.count(name) for name in ("pass", "fail", "hold")}}


def rule_of(gate: Gate) -> Rule:
    """Return a gate of params.yaml as a plain rule."""
    bound = next(name for name in BOUNDS if getattr(gate, name) is not None)
    threshold = float(getattr(gate, bound))
    return Rule(gate.metric, gate.set, gate.slice, gate.versus, bound, threshold, gate.severity)


def _costs(evaluated: Path, teacher: Path, exported: Path) -> dict[Key, Measurement]:
    """Return what does not depend on rows: sizes, FLOPs, latency, differences of exported models."""
    mine, theirs = read_json(evaluated / "cost.json"), read_json(teacher / "cost.json")
    parity = read_json(exported / "parity.json")
    found: dict[Key, Measurement] = {}
    for metric in ("params_total", "params_non_embedding", "size_bytes", "flops_per_example"):
        found["student", metric, None, "overall"] = Measurement(mine.get(metric))
        found["teacher", metric, None, "overall"] = Measurement(theirs.get(metric))
    latency = mine.get("latency", {}).get("torch", {}).get("1", {})  # both in one process, interleaved
    found["student", "latency_ms_p50_batch_1", None, "overall"] = Measurement(latency.get("latency_ms_p50"))
    found["teacher", "latency_ms_p50_batch_1", None, "overall"] = Measurement(latency.get("teacher_latency_ms_p50"))
    for metric in ("load_back_max_difference", "onnx_max_difference"):
        found["student", metric, None, "overall"] = Measurement(parity.get(metric))
    return found


def _quality(who: str, rule: Rule, folders: Mapping[str, tuple[Path, Any]], num_classes: int, bins: int) -> Measurement:
    """Return a metric recomputed from predictions, doubtful if it differs from the report or the rows do."""
    assert rule.set is not None  # the schema asks for it
    folder, sets = folders[who]
    reported = sets.get(rule.set)
    if reported is None:
        return Measurement(
            None, doubt=f"quality.json of {who} has no set {rule.set!r}; it has {', '.join(sorted(sets))}"
        )
    rows = _predictions(folder, who, rule.set)
    teacher = _predictions(folders["teacher"][0], "teacher", rule.set)
    if rows is None or teacher is None:
        return Measurement(None, doubt=f"there are no predictions of {who} or the teacher on {rule.set!r}")
    doubt = _other_rows(who, rule.set, rows, teacher, reported, folders["teacher"][1].get(rule.set))
    if doubt:
        return Measurement(None, doubt=doubt)
    chosen = np.array([rule.slice == "overall" or rule.slice in slices for slices in rows["slices"]], dtype=bool)
    support = int(chosen.sum())
    if not support:
        return Measurement(0.0, support=0)
    values = {name: rows[name][chosen] for name in ("label", "prediction", "logits")}
    value = _metric(rule.metric, values, teacher["prediction"][chosen], num_classes, bins)
    told = reported.get("slices", {}).get(rule.slice, {}).get(rule.metric, {}).get("value")
    return Measurement(value, support, _disagreement(who, value, told))


def _metric(metric: str, rows: Mapping[str, Any], teacher: Any, num_classes: int, bins: int) -> float:
    """Return one metric of one slice."""
    if metric == "accuracy":
        return float(accuracy(rows["label"], rows["prediction"]))
    if metric == "macro_f1":
        return float(macro_f1(rows["label"], rows["prediction"], num_classes))
    if metric == "nll_nats_per_example":
        return float(nll_nats_per_example(rows["logits"], rows["label"]))
    if metric == "calibration_error":
        return float(calibration_error(rows["logits"], rows["label"], bins))
    return float(agreement(rows["prediction"], teacher))


def _disagreement(who: str, value: float, told: object) -> str | None:
    if isinstance(told, float | int) and math.isfinite(told) and abs(told - value) <= TOLERANCE:
        return None
    return (
        f"quality.json of {who} says {told!r} where its predictions give {value!r}; one of the two was changed or "
        "belongs to another evaluation. Evaluate again"
    )


def _other_rows(
    who: str, name: str, rows: Mapping[str, Any], teacher: Mapping[str, Any], reported: Any, teachers: Any
) -> str | None:
    """Return a sentence if a set's rows are not those on which the teacher was measured."""
    if teachers is None or reported.get("rows_sha256") is None:
        return f"set {name!r} has no rows_sha256 for {who} or the teacher"
    same = len(rows["row_id"]) == len(teacher["row_id"]) and np.array_equal(rows["row_id"], teacher["row_id"])
    if reported["rows_sha256"] != teachers["rows_sha256"] or not same or reported["rows"] != len(rows["row_id"]):
        return f"set {name!r}: {who} and the teacher were measured on different rows. Evaluate both again"
    if not np.array_equal(rows["label"], teacher["label"]):
        return f"set {name!r}: {who} and the teacher were measured with different labels. Evaluate both again"
    if not np.array_equal(rows["prediction"], rows["logits"].argmax(axis=1)):
        return f"set {name!r}: the predictions of {who} are not the largest of its logits. Evaluate again"
    return None


def _predictions(folder: Path, who: str, name: str) -> dict[str, Any] | None:
    """Return the columns of a predictions file, logits as one array (rows x classes); None if there is no file."""
    place = (folder / "predictions" / who if who == _RIVAL else folder / "predictions") / f"{name}.parquet"
    if not place.is_file():
        return None
    table = pq.read_table(place)
    columns = sorted((c for c in table.column_names if c.startswith("logit_")), key=lambda c: int(c.split("_")[1]))
    logits = [table[column].to_numpy() for column in columns]
    return {
        "row_id": np.array(table["row_id"].to_pylist(), dtype=object),
        "label": table["label"].to_numpy(),
        "prediction": table["prediction"].to_numpy(),
        "logits": np.stack(logits, axis=1) if logits else np.zeros((len(table), 0), np.float32),
        "slices": table["slices"].to_pylist(),
    }
