"""Evidence for rules about sets: what every model's stored predictions say, or why they prove nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tasks.gates.judge import Paired, PairKey
from tasks.gates.rules import METRICS, Asked, Key, Measurement, Rule
from tasks.measuring.predictions import Rows, read_rows

TOLERANCE: Final = 1e-6
Gathered = tuple[dict[Key, Measurement], dict[PairKey, Paired], dict[str, Sequence[str]]]  # pairs, slices by set


@dataclass(frozen=True)
class Model:
    """One model's evaluation: its name in sentences, `sets` of quality.json, and the folder of its predictions."""

    who: str
    sets: Mapping[str, Any]
    predictions: Path

    def rows(self, name: str) -> Rows | None:
        """Return the predictions on a set, None without a readable file."""
        return read_rows(self.predictions / f"{name}.parquet")

    def reported(self, name: str, *keys: str) -> Any:
        """Return what quality.json says of a set below `keys`, None where it says nothing."""
        place: Any = self.sets.get(name, {})
        for key in keys:
            place = place.get(key, {})
        return place.get("value")


class Evaluations(Protocol):
    """What student, teacher and rivals stored; each task has its own."""

    def slices(self, name: str) -> Sequence[str]:
        """Return the slices of a set."""

    def measure(self, who: str, rule: Rule) -> Measurement:
        """Return a model's metric recomputed, doubtful where quality.json says something else."""

    def pair(self, versus: str, rule: Rule) -> Paired:
        """Return what student and another say of the same rows, or the sentence why that is not known."""


def gather_from(evaluations: Evaluations, rules: Iterable[Rule | Asked]) -> Gathered:
    """Return measurements, pairs and slice names by set, for the rules that are about sets."""
    evidence: dict[Key, Measurement] = {}
    pairs: dict[PairKey, Paired] = {}
    names: dict[str, Sequence[str]] = {}
    for rule in rules:
        if isinstance(rule, Asked) or rule.set is None or not METRICS[rule.metric]:
            continue
        if rule.set not in names:
            names[rule.set] = evaluations.slices(rule.set)
        for part in rule.of_slices(names[rule.set]):
            if part.metric != "churn":
                for who in ("student", *([part.versus] if part.versus else [])):
                    evidence[who, part.metric, part.set, part.slice] = evaluations.measure(who, part)
            if part.is_paired and part.versus is not None:
                pairs[part.versus, rule.set, part.slice] = evaluations.pair(part.versus, part)
    return evidence, pairs, names


def disagreement(who: str, value: float, reported: object, scale: float = 1.0) -> str | None:
    """Return a sentence if the reported value is not the one found, to rounding at this scale."""
    if isinstance(reported, float | int) and math.isfinite(reported) and abs(reported - value) <= TOLERANCE * scale:
        return None
    return (
        f"quality.json of {who} says {reported!r} where its predictions give {value!r}; one of the two was changed or "
        "belongs to another evaluation. Evaluate again"
    )
