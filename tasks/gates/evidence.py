"""Evidence for rules about sets: what every model's stored predictions say, or why they prove nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tasks.gates.judge import Paired, PairKey
from tasks.gates.rules import METRICS, WHO, Asked, Key, Measurement, Rule
from tasks.measuring.predictions import read_rows

TOLERANCE: Final = 1e-6
Gathered = tuple[dict[Key, Measurement], dict[PairKey, Paired], dict[str, Sequence[str]]]  # pairs, slices by set
Stored = Any  # columns of stored rows or blocks, by name


@dataclass(frozen=True)
class Model:
    """One model's evaluation: its name in sentences, `sets` of quality.json, and the folder of its predictions."""

    who: str
    sets: Mapping[str, Any]
    predictions: Path

    def rows(self, name: str) -> Stored | None:
        """Return a classifier's predictions on a set, None without a readable file."""
        return read_rows(self.predictions / f"{name}.parquet")

    def reported(self, name: str, *keys: str) -> Any:
        """Return what quality.json says of a set below `keys`, None where it says nothing."""
        place: Any = self.sets.get(name, {})
        for key in keys:
            place = place.get(key, {})
        return place.get("value")


@dataclass(frozen=True)
class Reading:
    """How a task's stored predictions become evidence; `unit` is row or block, `identity` the columns that name one.

    `doubt` is asked of a model's name, its rows and the teacher's; `measure` of the model and those; `pair` of two models' rows.
    """

    unit: str
    identity: Sequence[str]
    read: Callable[[Path], Stored | None]
    slices: Callable[[Iterable[Mapping[str, Any]]], Sequence[str]]
    doubt: Callable[[str, Stored, Stored], str | None]
    measure: Callable[[Model, Rule, Stored, Stored], Measurement]
    pair: Callable[[Rule, Stored, Stored], Paired]


def gather_from(rules: Iterable[Rule | Asked], models: Mapping[str, Model], reading: Reading) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about sets.

    `models` has `student`, `teacher` (whose rows or blocks everybody must share) and those that rules are `versus`.
    """
    evidence: dict[Key, Measurement] = {}
    pairs: dict[PairKey, Paired] = {}
    names: dict[str, Sequence[str]] = {}
    sides = [models[who].sets for who in ("student", "teacher") if who in models]
    for rule in rules:
        if isinstance(rule, Asked) or rule.set is None or not METRICS[rule.metric]:
            continue
        # a set that one side leaves out is missing, not absent
        sets = [name for side in sides for name in side if fnmatchcase(name, rule.set)] if rule.is_of_many_sets else [rule.set]
        for name in sets:
            names.setdefault(name, reading.slices([side.get(name, {}) for side in sides]))
        for part in rule.parts(names):
            if part.metric != "churn":
                for who in ("student", *([part.versus] if part.versus else [])):
                    evidence[who, part.metric, part.set, part.slice] = _measurement(models, who, part, reading)
            if part.is_paired:
                pairs[part.paired_by] = _pair(models, part.versus or "teacher", part, reading)
    return evidence, pairs, names


def _measurement(models: Mapping[str, Model], who: str, rule: Rule, reading: Reading) -> Measurement:
    """Return a metric recomputed from predictions, doubtful if it differs from the report or the rows do."""
    sound = _sound(models, who, str(rule.set), reading)
    return Measurement(None, doubt=sound) if isinstance(sound, str) else reading.measure(models[who], rule, *sound)


def _pair(models: Mapping[str, Model], versus: str, rule: Rule, reading: Reading) -> Paired:
    """Return what student and another say of the same rows or blocks, or the sentence why that is not known."""
    student, other = (_sound(models, who, str(rule.set), reading) for who in ("student", versus))
    if isinstance(student, str):
        return student
    return other if isinstance(other, str) else reading.pair(rule, student[0], other[0])


def _sound(models: Mapping[str, Model], who: str, name: str, reading: Reading) -> tuple[Stored, Stored] | str:
    """Return a model's rows or blocks and the teacher's on a set, or the sentence why they prove nothing."""
    for each in (who, "teacher"):
        if each not in models:
            return f"there is no evaluation of {WHO.get(each, each)}"
        sets = models[each].sets
        if name not in sets:
            return f"quality.json of {each} has no set {name!r}; it has {', '.join(sorted(sets))}"
        if sets[name].get("rows_sha256") is None:
            return f"set {name!r} has no rows_sha256 for {each}"
    rows, teacher = (reading.read(models[each].predictions / f"{name}.parquet") for each in (who, "teacher"))
    if rows is None or teacher is None:
        return f"there are no predictions of {who} or the teacher on {name!r}"
    entry, other = models[who].sets[name], models["teacher"].sets[name]
    as_reported = entry["rows_sha256"] == other["rows_sha256"] and entry.get("rows") == len(rows["row_id"])
    doubt = _doubt(who, rows, teacher, reading, as_reported)
    return f"set {name!r}: {doubt}" if doubt is not None else (rows, teacher)


def _doubt(who: str, rows: Stored, teacher: Stored, reading: Reading, as_reported: bool) -> str | None:
    """Return a sentence if these are not the rows or blocks on which the teacher was measured, or are none at all."""
    ids = list(rows["row_id"])
    if not ids:
        return f"the predictions of {who} are empty. Evaluate again"
    if not as_reported or any(list(rows[column]) != list(teacher[column]) for column in reading.identity):
        return f"{who} and the teacher were measured on different {reading.unit}s. Evaluate both again"
    if len(set(ids)) != len(ids):
        return f"a {reading.unit} counts more than once in the predictions of {who}. Prepare and evaluate again"
    return reading.doubt(who, rows, teacher)


def disagreement(who: str, value: float, reported: object, scale: float = 1.0) -> str | None:
    """Return a sentence if the reported value is not the one found, to rounding at this scale."""
    if isinstance(reported, float | int) and math.isfinite(reported) and abs(reported - value) <= TOLERANCE * scale:
        return None
    return (
        f"quality.json of {who} says {reported!r} where its predictions give {value!r}; one of the two was changed or "
        "belongs to another evaluation. Evaluate again"
    )
