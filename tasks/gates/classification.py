"""Evidence from stored predictions: metrics recomputed row by row, and why they may not be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.gates.judge import Paired, PairKey
from tasks.gates.paired import Pairs, count_pairs
from tasks.gates.rules import METRICS, WHO, Asked, Key, Measurement, Rule
from tasks.measuring.quality import accuracy, agreement, calibration_error, macro_f1, nll_nats_per_example

TOLERANCE: Final = 1e-6
Rows = dict[str, Any]
Gathered = tuple[dict[Key, Measurement], dict[PairKey, Paired], dict[str, Sequence[str]]]  # pairs, slices by set


@dataclass(frozen=True)
class Model:
    """One model's evaluation: its name in sentences, `sets` of quality.json, and the folder of its predictions."""

    who: str
    sets: Mapping[str, Any]
    predictions: Path

    def rows(self, name: str) -> Rows | None:
        """Return the predictions on a set, None without a readable file."""
        return read_predictions(self.predictions / f"{name}.parquet")


def read_predictions(path: Path) -> Rows | None:
    """Return the columns of a predictions file, logits as one array (rows x classes); None if it cannot be read."""
    try:
        table = pq.read_table(path)
        columns = sorted((c for c in table.column_names if c.startswith("logit_")), key=lambda c: int(c.split("_")[1]))
        logits = [table[column].to_numpy() for column in columns]
        return {
            "row_id": np.array(table["row_id"].to_pylist(), dtype=object),
            "label": table["label"].to_numpy(),
            "prediction": table["prediction"].to_numpy(),
            "logits": np.stack(logits, axis=1) if logits else np.zeros((len(table), 0), np.float32),
            "slices": table["slices"].to_pylist(),
        }
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None


def gather(rules: Iterable[Rule | Asked], models: Mapping[str, Model], num_classes: int, bins: int) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about rows.

    `models` has `student`, `teacher` (whose rows everybody must share) and those that rules are `versus`.
    """
    evidence: dict[Key, Measurement] = {}
    pairs: dict[PairKey, Paired] = {}
    names: dict[str, Sequence[str]] = {}
    for rule in rules:
        if isinstance(rule, Asked) or rule.set is None or not METRICS[rule.metric]:
            continue
        names.setdefault(rule.set, _slice_names(models, rule.set))
        for part in rule.of_slices(names[rule.set]):
            if part.metric != "churn":
                for who in ("student", part.versus):
                    if who is not None:
                        found = measure(models, who, part, num_classes, bins)
                        evidence[who, part.metric, part.set, part.slice] = found
            if part.is_paired and part.versus is not None:
                pairs[part.versus, rule.set, part.slice] = pair(models, part, num_classes)
    return evidence, pairs, names


def _slice_names(models: Mapping[str, Model], name: str) -> list[str]:
    """Return the slices either side reports: one that the student's report leaves out is missing, not absent."""
    return sorted(
        {
            one
            for who in ("student", "teacher")
            if who in models
            for one in models[who].sets.get(name, {}).get("slices", {})
        }
    )


def measure(models: Mapping[str, Model], who: str, rule: Rule, num_classes: int, bins: int) -> Measurement:
    """Return a metric recomputed from predictions, doubtful if it differs from the report or the rows do."""
    assert rule.set is not None  # the schema asks for it
    found = _sound(models, who, rule.set, num_classes)
    if isinstance(found, str):
        return Measurement(None, doubt=found)
    rows, teacher = found
    chosen = _chosen(rows, rule.slice)
    support = int(chosen.sum())
    if not support:
        return Measurement(0.0, support=0)
    values = {name: rows[name][chosen] for name in ("label", "prediction", "logits")}
    value = _metric(rule.metric, values, teacher["prediction"][chosen], num_classes, bins)
    reported = models[who].sets[rule.set]
    told = reported.get("slices", {}).get(rule.slice, {}).get(rule.metric, {}).get("value")
    return Measurement(value, support, disagreement(who, value, told))


def pair(models: Mapping[str, Model], rule: Rule, num_classes: int) -> Pairs | str:
    """Return the counts of rows on which student and `rule.versus` differ, or why there are none."""
    assert rule.set is not None
    assert rule.versus is not None
    sides = [_sound(models, who, rule.set, num_classes) for who in ("student", rule.versus)]
    for one in sides:
        if isinstance(one, str):
            return one
    mine, theirs = (one[0] for one in sides if not isinstance(one, str))
    chosen = _chosen(mine, rule.slice)
    return count_pairs(mine["label"][chosen], mine["prediction"][chosen], theirs["prediction"][chosen])


def _sound(models: Mapping[str, Model], who: str, name: str, num_classes: int) -> tuple[Rows, Rows] | str:
    """Return a model's rows and the teacher's on a set, or the sentence why they prove nothing."""
    if who not in models:
        return f"there is no evaluation of {WHO.get(who, who)}"
    if "teacher" not in models:
        return "there is no evaluation of the teacher"
    reported = models[who].sets.get(name)
    if reported is None:
        return f"quality.json of {who} has no set {name!r}; it has {', '.join(sorted(models[who].sets))}"
    rows, teacher = models[who].rows(name), models["teacher"].rows(name)
    if rows is None or teacher is None:
        return f"there are no predictions of {who} or the teacher on {name!r}"
    return _other_rows(who, name, rows, teacher, reported, models["teacher"].sets.get(name), num_classes) or (
        rows,
        teacher,
    )


def _chosen(rows: Rows, slice_name: str) -> Any:
    return np.array([slice_name == "overall" or slice_name in names for names in rows["slices"]], dtype=bool)


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


def disagreement(who: str, value: float, told: object, scale: float = 1.0) -> str | None:
    """Return a sentence if the reported value is not the one found, to rounding at this scale."""
    if isinstance(told, float | int) and math.isfinite(told) and abs(told - value) <= TOLERANCE * scale:
        return None
    return (
        f"quality.json of {who} says {told!r} where its predictions give {value!r}; one of the two was changed or "
        "belongs to another evaluation. Evaluate again"
    )


def _other_rows(
    who: str, name: str, rows: Rows, teacher: Rows, reported: Any, teachers: Any, num_classes: int
) -> str | None:
    """Return a sentence if a set's rows are not those on which the teacher was measured, or are none at all."""
    if teachers is None or reported.get("rows_sha256") is None:
        return f"set {name!r} has no rows_sha256 for {who} or the teacher"
    if not len(rows["row_id"]):
        return f"set {name!r}: the predictions of {who} are empty. Evaluate again"
    same = len(rows["row_id"]) == len(teacher["row_id"]) and np.array_equal(rows["row_id"], teacher["row_id"])
    if reported["rows_sha256"] != teachers["rows_sha256"] or not same or reported["rows"] != len(rows["row_id"]):
        return f"set {name!r}: {who} and the teacher were measured on different rows. Evaluate both again"
    if len(set(rows["row_id"])) != len(rows["row_id"]):
        return f"set {name!r}: a row counts more than once in the predictions of {who}. Prepare and evaluate again"
    if not np.array_equal(rows["label"], teacher["label"]):
        return f"set {name!r}: {who} and the teacher were measured with different labels. Evaluate both again"
    if not np.isin(rows["label"], np.arange(num_classes)).all():
        return f"set {name!r}: a label of {who} is none of the {num_classes} classes. Prepare and evaluate again"
    if rows["logits"].shape[1] != num_classes or not np.isfinite(rows["logits"]).all():
        return f"set {name!r}: {who} has not {num_classes} finite logits for each row. Evaluate again"
    if not np.array_equal(rows["prediction"], rows["logits"].argmax(axis=1)):
        return f"set {name!r}: the predictions of {who} are not the largest of its logits. Evaluate again"
    if rows["slices"] != teacher["slices"]:
        return f"set {name!r}: {who} and the teacher have their rows in different slices. Evaluate both again"
    return None
