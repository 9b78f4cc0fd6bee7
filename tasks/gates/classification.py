"""Evidence from a classifier's stored predictions: metrics recomputed row by row, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tasks.gates.evidence import Gathered, Model, Reading, disagreement, gather_from
from tasks.gates.paired import Pairs, count_pairs
from tasks.gates.rules import Asked, Measurement, Rule
from tasks.measuring.predictions import Rows, read_rows
from tasks.measuring.quality import accuracy, agreement, calibration_error, macro_f1, nll_nats_per_example


def gather(rules: Iterable[Rule | Asked], models: Mapping[str, Model], num_classes: int, bins: int) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about rows: `gather_from`."""
    doubt, measure = partial(_doubt, num_classes), partial(_measure, num_classes, bins)
    return gather_from(rules, models, Reading("row", ("row_id",), read_rows, _slices, doubt, measure, _pair))


def _slices(sides: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the slices either side reports: one that the student's report leaves out is missing, not absent."""
    return sorted({name for side in sides for name in side.get("slices", {})})


def _measure(num_classes: int, bins: int, model: Model, rule: Rule, rows: Rows, teacher: Rows) -> Measurement:
    chosen = _in_slice(rows, rule.slice)
    support = int(chosen.sum())
    if not support:
        return Measurement(0.0, support=0)
    labels, predictions, logits = (rows[column][chosen] for column in ("label", "prediction", "logits"))
    metrics = {
        "accuracy": lambda: accuracy(labels, predictions),
        "macro_f1": lambda: macro_f1(labels, predictions, num_classes),
        "nll_nats_per_example": lambda: nll_nats_per_example(logits, labels),
        "calibration_error": lambda: calibration_error(logits, labels, bins),
        "agreement": lambda: agreement(predictions, teacher["prediction"][chosen]),
    }
    value = metrics[rule.metric]()
    reported = model.reported(str(rule.set), "slices", rule.slice, rule.metric)
    return Measurement(value, support, disagreement(model.who, value, reported))


def _pair(rule: Rule, rows: Rows, other: Rows) -> Pairs:
    chosen = _in_slice(rows, rule.slice)
    return count_pairs(rows["label"][chosen], rows["prediction"][chosen], other["prediction"][chosen])


def _in_slice(rows: Rows, name: str) -> Any:
    return np.array([name == "overall" or name in names for names in rows["slices"]], dtype=bool)


def _doubt(num_classes: int, who: str, rows: Rows, teacher: Rows) -> str | None:
    """Return a sentence if labels, logits or slices cannot be."""
    if not np.array_equal(rows["label"], teacher["label"]):
        return f"{who} and the teacher were measured with different labels. Evaluate both again"
    if not np.isin(rows["label"], np.arange(num_classes)).all():
        return f"a label of {who} is none of the {num_classes} classes. Prepare and evaluate again"
    if rows["logits"].shape[1] != num_classes or not np.isfinite(rows["logits"]).all():
        return f"{who} has not {num_classes} finite logits for each row. Evaluate again"
    if not np.array_equal(rows["prediction"], rows["logits"].argmax(axis=1)):
        return f"the predictions of {who} are not the largest of its logits. Evaluate again"
    if rows["slices"] != teacher["slices"]:
        return f"{who} and the teacher have their rows in different slices. Evaluate both again"
    return None
