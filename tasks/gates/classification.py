"""Evidence from a classifier's stored predictions: metrics recomputed row by row, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tasks.artifacts import GROUP, NO_LABEL, original_of
from tasks.gates.evidence import Gathered, Model, Reading, disagreement, gather_from
from tasks.gates.judge import Paired
from tasks.gates.paired import count_pairs
from tasks.gates.rules import OF_ORDER, ONLY_UNLABELLED, Asked, Measurement, Rule
from tasks.gates.unlike import Hits, Values
from tasks.measuring.predictions import SWAPPED, Rows, read_rows
from tasks.measuring.quality import accuracy, agreement, calibration_error, macro_f1, moved_by_order, nll_nats_per_example
from tasks.measuring.unlabelled import Unlike, calibrating_temperature, unlike


def gather(rules: Iterable[Rule | Asked], models: Mapping[str, Model], num_classes: int, bins: int) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about rows: `gather_from`."""
    rules = list(rules)
    asked = any(isinstance(rule, Rule) and rule.metric == "expected_drop" for rule in rules)
    temperature = _temperature(models) if asked else None
    doubt, measure = partial(_doubt, num_classes), partial(_measure, num_classes, bins, temperature)
    return gather_from(
        rules, models, Reading("row", ("row_id",), read_rows, _slices, doubt, measure, partial(_pair, temperature))
    )


def _temperature(models: Mapping[str, Model]) -> float | None:
    """Return what calibrates the teacher on validation, None without its predictions."""
    rows = models["teacher"].rows("validation") if "teacher" in models else None
    return calibrating_temperature(rows["logits"], rows["label"]) if rows is not None and len(rows["label"]) else None


def _slices(sides: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the slices either side reports: one that the student's report leaves out is missing, not absent."""
    return sorted({name for side in sides for name in side.get("slices", {})})


def _measure(
    num_classes: int, bins: int, temperature: float | None, model: Model, rule: Rule, rows: Rows, teacher: Rows
) -> Measurement:
    chosen = _in_slice(rows, rule.slice)
    support = int(chosen.sum())
    if not support:
        return Measurement(0.0, support=0)
    reported = model.reported(str(rule.set), "slices", rule.slice, rule.metric)
    if rule.metric == OF_ORDER:
        if SWAPPED not in rows:
            return Measurement(None, support, f"set {rule.set!r} has no predictions on pairs with their texts swapped")
        moved = float(moved_by_order(rows["logits"], rows[SWAPPED])[chosen].mean())
        reported = model.reported(str(rule.set), "variants", "swapped", OF_ORDER)
        return Measurement(moved, support, disagreement(model.who, moved, reported))
    if rule.metric in ONLY_UNLABELLED:
        compared = _compared(rule, rows, teacher, temperature)
        if isinstance(compared, str):
            return Measurement(None, support, compared)
        found = compared.values()[rule.metric]
        return Measurement(found, support, disagreement(model.who, found, reported))
    labels, predictions, logits = (rows[column][chosen] for column in ("label", "prediction", "logits"))
    metrics = {
        "accuracy": lambda: accuracy(labels, predictions),
        "macro_f1": lambda: macro_f1(labels, predictions, num_classes),
        "nll_nats_per_example": lambda: nll_nats_per_example(logits, labels),
        "calibration_error": lambda: calibration_error(logits, labels, bins),
        "agreement": lambda: agreement(predictions, teacher["prediction"][chosen]),
    }
    value = metrics[rule.metric]()
    return Measurement(value, support, disagreement(model.who, value, reported))


def _compared(rule: Rule, rows: Rows, teacher: Rows, temperature: float | None) -> Unlike | str:
    """Return what the rows of a slice say of a student and its teacher, or why that is not known."""
    if temperature is None and rule.metric == "expected_drop":
        return "there are no predictions of the teacher on 'validation', which calibrate it"
    ids = [str(row) for row in rows["row_id"]]
    copies = any(row != original_of(row) for row in ids)
    missing = {original_of(row) for row in ids} - set(ids)
    if missing:
        return f"set {rule.set!r}: the row {min(missing)}, of which there are changed copies, is missing. Evaluate again"
    compared = unlike(rows["logits"], teacher["logits"], temperature or 1.0, ids if copies else ()).of(
        _in_slice(rows, rule.slice)
    )
    if rule.metric not in compared.values():
        return f"slice {rule.slice!r} of set {rule.set!r} has rows that are no changed copies"
    return compared


def _pair(temperature: float | None, rule: Rule, rows: Rows, other: Rows) -> Paired:
    chosen = _in_slice(rows, rule.slice)
    if rule.metric == "agreement":
        return Hits(int(chosen.sum()), int((rows["prediction"] == other["prediction"])[chosen].sum()))
    if rule.metric in ONLY_UNLABELLED and chosen.any():
        compared = _compared(rule, rows, other, temperature)
        if isinstance(compared, str):
            return compared
        if rule.metric in compared.shares:
            return Hits(int(chosen.sum()), int(compared.shares[rule.metric].sum()))
        if rule.metric in compared.gaps:
            return Values(compared.gaps[rule.metric], widest=True)
        return Values(compared.means[rule.metric][:, None], widest=False)
    groups = rows[GROUP][chosen] if GROUP in rows else None
    return count_pairs(rows["label"][chosen], rows["prediction"][chosen], other["prediction"][chosen], groups)


def _in_slice(rows: Rows, name: str) -> Any:
    return np.array([name == "overall" or name in names for names in rows["slices"]], dtype=bool)


def _doubt(num_classes: int, who: str, rows: Rows, teacher: Rows) -> str | None:
    """Return a sentence if labels, logits or slices cannot be."""
    if not np.array_equal(rows["label"], teacher["label"]):
        return f"{who} and the teacher were measured with different labels. Evaluate both again"
    if not np.isin(rows["label"], np.arange(num_classes)).all() and not (rows["label"] == NO_LABEL).all():
        return f"a label of {who} is none of the {num_classes} classes. Prepare and evaluate again"
    if rows["logits"].shape[1] != num_classes or not np.isfinite(rows["logits"]).all():
        return f"{who} has not {num_classes} finite logits for each row. Evaluate again"
    if not np.array_equal(rows["prediction"], rows["logits"].argmax(axis=1)):
        return f"the predictions of {who} are not the largest of its logits. Evaluate again"
    if list(rows.get(GROUP, ())) != list(teacher.get(GROUP, ())):
        return f"{who} and the teacher have their rows in different groups. Evaluate both again"
    if rows["slices"] != teacher["slices"]:
        return f"{who} and the teacher have their rows in different slices. Evaluate both again"
    return None
