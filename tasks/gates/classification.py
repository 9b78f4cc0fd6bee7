"""Evidence from a classifier's stored predictions: metrics recomputed row by row, and why they may not be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tasks.gates.evidence import Gathered, Model, disagreement, gather_from
from tasks.gates.paired import Pairs, count_pairs
from tasks.gates.rules import WHO, Asked, Measurement, Rule
from tasks.measuring.predictions import Rows
from tasks.measuring.quality import Ints, accuracy, agreement, calibration_error, macro_f1, nll_nats_per_example


def gather(rules: Iterable[Rule | Asked], models: Mapping[str, Model], num_classes: int, bins: int) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about rows.

    `models` has `student`, `teacher` (whose rows everybody must share) and those that rules are `versus`.
    """
    return gather_from(_Evaluations(models, num_classes, bins), rules)


@dataclass(frozen=True)
class _Chosen:
    """The rows of one slice, with the teacher's predictions of them."""

    labels: Ints
    predictions: Ints
    logits: Any
    teachers: Ints
    num_classes: int
    bins: int


_METRICS: Final[dict[str, Callable[[_Chosen], float]]] = {
    "accuracy": lambda rows: accuracy(rows.labels, rows.predictions),
    "macro_f1": lambda rows: macro_f1(rows.labels, rows.predictions, rows.num_classes),
    "nll_nats_per_example": lambda rows: nll_nats_per_example(rows.logits, rows.labels),
    "calibration_error": lambda rows: calibration_error(rows.logits, rows.labels, rows.bins),
    "agreement": lambda rows: agreement(rows.predictions, rows.teachers),
}


@dataclass(frozen=True)
class _Evaluations:
    models: Mapping[str, Model]
    num_classes: int
    bins: int

    def slices(self, name: str) -> Sequence[str]:
        """Return the slices either side reports: one that the student's report leaves out is missing, not absent."""
        sides = [self.models[who].sets.get(name, {}) for who in ("student", "teacher") if who in self.models]
        return sorted({slice_name for side in sides for slice_name in side.get("slices", {})})

    def measure(self, who: str, rule: Rule) -> Measurement:
        """Return a metric recomputed from predictions, doubtful if it differs from the report or the rows do."""
        assert rule.set is not None  # the schema asks for it
        sound = self._sound(who, rule.set)
        if isinstance(sound, str):
            return Measurement(None, doubt=sound)
        rows, teacher = sound
        chosen = _in_slice(rows, rule.slice)
        support = int(chosen.sum())
        if not support:
            return Measurement(0.0, support=0)
        columns = [rows[name][chosen] for name in ("label", "prediction", "logits")]
        value = _METRICS[rule.metric](_Chosen(*columns, teacher["prediction"][chosen], self.num_classes, self.bins))
        reported = self.models[who].reported(rule.set, "slices", rule.slice, rule.metric)
        return Measurement(value, support, disagreement(who, value, reported))

    def pair(self, versus: str, rule: Rule) -> Pairs | str:
        """Return the counts of rows on which student and another differ, or why there are none."""
        assert rule.set is not None
        student, other = self._sound("student", rule.set), self._sound(versus, rule.set)
        if isinstance(student, str):
            return student
        if isinstance(other, str):
            return other
        chosen = _in_slice(student[0], rule.slice)
        labels, predictions = student[0]["label"][chosen], student[0]["prediction"][chosen]
        return count_pairs(labels, predictions, other[0]["prediction"][chosen])

    def _sound(self, who: str, name: str) -> tuple[Rows, Rows] | str:
        """Return a model's rows and the teacher's on a set, or the sentence why they prove nothing."""
        for each in (who, "teacher"):
            if each not in self.models:
                return f"there is no evaluation of {WHO.get(each, each)}"
        model, teacher = self.models[who], self.models["teacher"]
        if name not in model.sets:
            return f"quality.json of {who} has no set {name!r}; it has {', '.join(sorted(model.sets))}"
        rows, teachers = model.rows(name), teacher.rows(name)
        if rows is None or teachers is None:
            return f"there are no predictions of {who} or the teacher on {name!r}"
        if name not in teacher.sets or model.sets[name].get("rows_sha256") is None:
            return f"set {name!r} has no rows_sha256 for {who} or the teacher"
        doubt = self._doubt(who, rows, teachers, _are_reported(model.sets[name], teacher.sets[name], rows))
        return f"set {name!r}: {doubt}" if doubt is not None else (rows, teachers)

    def _doubt(self, who: str, rows: Rows, teacher: Rows, as_reported: bool) -> str | None:
        """Return a sentence if these are not the rows on which the teacher was measured, or are none at all."""
        if not len(rows["row_id"]):
            return f"the predictions of {who} are empty. Evaluate again"
        if not as_reported or not np.array_equal(rows["row_id"], teacher["row_id"]):
            return f"{who} and the teacher were measured on different rows. Evaluate both again"
        if len(set(rows["row_id"])) != len(rows["row_id"]):
            return f"a row counts more than once in the predictions of {who}. Prepare and evaluate again"
        if not np.array_equal(rows["label"], teacher["label"]):
            return f"{who} and the teacher were measured with different labels. Evaluate both again"
        if not np.isin(rows["label"], np.arange(self.num_classes)).all():
            return f"a label of {who} is none of the {self.num_classes} classes. Prepare and evaluate again"
        if rows["logits"].shape[1] != self.num_classes or not np.isfinite(rows["logits"]).all():
            return f"{who} has not {self.num_classes} finite logits for each row. Evaluate again"
        if not np.array_equal(rows["prediction"], rows["logits"].argmax(axis=1)):
            return f"the predictions of {who} are not the largest of its logits. Evaluate again"
        if rows["slices"] != teacher["slices"]:
            return f"{who} and the teacher have their rows in different slices. Evaluate both again"
        return None


def _are_reported(reported: Mapping[str, Any], teachers: Mapping[str, Any], rows: Rows) -> bool:
    """Return whether quality.json tells of these rows, and of those of the teacher."""
    same = reported.get("rows_sha256") == teachers.get("rows_sha256")
    return same and bool(reported.get("rows") == len(rows["row_id"]))


def _in_slice(rows: Rows, name: str) -> Any:
    return np.array([name == "overall" or name in names for names in rows["slices"]], dtype=bool)
