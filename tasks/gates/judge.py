"""Gate rules: evidence in, a verdict out. A verdict is data, never an exit code.

Each rule ends as pass, fail or hold. Hold means that it cannot be decided: evidence missing, not finite, of the wrong
type, doubtful, on too few rows, or not enough for the proof that is asked. A hold is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Final

from tasks.gates.paired import Pairs
from tasks.gates.proof import Finding, Known, decide, describe, find
from tasks.gates.rules import (
    COUNTS,
    SHARES,
    WHO,
    Answer,
    Asked,
    Key,
    Measurement,
    Rule,
    formatted,
    keeps,
    points,
    possessive,
    subject,
)
from tasks.gates.unlike import Hits

PairKey = tuple[str, str, str]  # (versus, set, slice)
Paired = Known | str  # what two models say of the same rows or blocks, or why that is not known
NOTHING_MEASURED: Final = "nothing of another subject was measured; name texts in data.stress.sets: docs/robust.md"
_WORST: Final = ("pass", "hold", "fail")
_WORDS: Final = {"pass": "kept", "fail": "broken", "hold": "undecided"}


@dataclass(frozen=True)
class _Outcome:
    """What came of one rule on one slice, as verdict.json has it."""

    result: str
    sentence: str
    value: float | None = None
    measured: float | None = None
    reference: float | None = None
    support: int | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class _Evidence:
    """What is known: measurements, and what two models say of the same rows."""

    measurements: Mapping[Key, Measurement]
    pairs: Mapping[PairKey, Paired]
    seed: int

    def sides(self, rule: Rule) -> tuple[Measurement | None, Measurement | None]:
        """Return the measurements of the student and of the model that a rule is `versus`."""
        keys = ((who, rule.metric, rule.set, rule.slice) for who in ("student", rule.versus or ""))
        student, other = (self.measurements.get(key) for key in keys)
        return student, other


def judge(
    rules: Sequence[Rule | Asked],
    evidence: Mapping[Key, Measurement],
    pairs: Mapping[PairKey, Paired] | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    answers: Mapping[str, Answer] | None = None,
) -> dict[str, Any]:
    """Return `verdict` (pass, fail or hold), its `sentence`, and the `rules` with value, result and sentence each.

    fail: a block rule fails; else hold: a block rule holds, or there is none; else pass. Warn rules change nothing.
    `pairs` has the counts or blocks for paired rules, or the sentence why there are none; `slices` the names of each
    set's slices; `answers` what the checks found.
    """
    known = _Evidence(evidence, pairs or {}, seed)
    judged = [
        _judge_check(rule, (answers or {}).get(rule.name)) if isinstance(rule, Asked) else _judge_parts(rule, known, slices or {})
        for rule in rules
    ]
    results = [rule["result"] for rule in judged if rule["severity"] == "block"]
    verdict = "fail" if "fail" in results else "pass" if set(results) == {"pass"} else "hold"
    warned = sum(rule["severity"] == "warn" and rule["result"] != "pass" for rule in judged)
    return {"verdict": verdict, "sentence": _overall(results, warned), "rules": judged}


def _overall(results: list[str], warned: int) -> str:
    if not results:
        return "hold: no rule with severity block is asked, so nothing is proven"
    start = f"of {len(results)} blocking rules {_counted(results)}"
    if results.count("pass") == len(results):
        start = f"all {len(results)} blocking rules are kept"
    return start + (f", {warned} warning{'s' if warned > 1 else ''}" if warned else "")


def _counted(results: list[str]) -> str:
    """Return how many of each result there are: `2 kept, 1 broken`."""
    return ", ".join(f"{results.count(result)} {words}" for result, words in _WORDS.items() if result in results)


def _judge_check(check: Asked, answer: Answer | None) -> dict[str, Any]:
    """Return what a check found; one that nobody answered, or not with a result there is, is a hold."""
    if answer is None or answer.result not in _WORST:
        answer = Answer("hold", "cannot be decided: nobody looked")
    return {**identity(check), "result": answer.result, "sentence": f"{check.name}: {answer.sentence}"}


def _judge_parts(rule: Rule, known: _Evidence, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the result of a rule; over a pattern of sets or slices that of the worst, with every one's below `slices`."""
    parts = rule.parts(names)
    if not parts:
        why = NOTHING_MEASURED if rule.is_of_many_sets else f"no slice is called {rule.slices!r}"
        return {**identity(rule), **asdict(_Outcome("hold", f"{subject(rule)}: cannot be decided: {why}"))}
    outcomes = _judge_pairs(parts, known) if rule.is_paired else [_judge_rule(part, known) for part in parts]
    if rule.slices is None and not rule.is_of_many_sets:
        return {**identity(rule), **asdict(outcomes[0])}
    of_sets: Mapping[Any, dict[str, Any]] = {part: {"set": part.set} if rule.is_of_many_sets else {} for part in parts}
    judged = [{**of_sets[part], "slice": part.slice, **asdict(outcome)} for part, outcome in zip(parts, outcomes, strict=True)]
    worst = max(judged, key=lambda each: (_WORST.index(each["result"]), _excess(rule, each["value"])))
    counts = _counted([each["result"] for each in judged])
    keys = (*of_sets[parts[0]], "slice", "value", "low", "high", "support", "p_value", "result", "sentence")
    what = f"slices {rule.slices!r}" if rule.slices else f"sets {rule.set!r}"
    return {
        **worst,
        **identity(rule),
        **({"worst_set": worst["set"]} if rule.is_of_many_sets else {}),
        "worst_slice": worst["slice"],
        "sentence": f"{counts} of {len(parts)} {what}; worst: {worst['sentence']}",
        "slices": [{key: each[key] for key in keys} for each in judged],
    }


def _excess(rule: Rule, value: float | None) -> float:
    """Return how far a value is on the wrong side of the bound; without a value nothing is worse."""
    if value is None:
        return math.inf
    return rule.threshold - value if rule.bound.startswith("min") else value - rule.threshold


def _judge_pairs(rules: list[Rule], known: _Evidence) -> list[_Outcome]:
    """Return the outcomes of paired rules of one family."""
    findings = [_finding(rule, known) for rule in rules]
    outcomes = []
    for rule, finding, (result, p_value) in zip(rules, findings, decide(rules, findings), strict=True):
        if isinstance(finding, str):
            outcomes.append(_Outcome(result, f"{subject(rule)}: cannot be decided: {finding}"))
            continue
        measured, reference = map(_number, known.sides(rule))
        words = describe(rule, finding, measured or 0.0, reference or 0.0, result)
        ends = (finding.pairs.rows, finding.low, finding.high, p_value)
        outcomes.append(_Outcome(result, words, finding.value, measured, reference, *ends))
    return outcomes


def _finding(rule: Rule, known: _Evidence) -> Finding | str:
    """Return what two models say of the same rows, or why it proves nothing: a metric must be sound before its difference is."""
    pairs = known.pairs.get(rule.paired_by, "there are no predictions to pair")
    trouble = _bound_trouble(rule)
    if trouble is not None or isinstance(pairs, str):
        return trouble or str(pairs)
    if isinstance(pairs, Pairs | Hits) and not pairs.possible:
        return f"{pairs} cannot be counts of rows"
    if pairs.rows < max(1, rule.min_support):
        return f"{pairs.rows} rows are too few; at least {rule.min_support} are asked"
    trouble = None if rule.metric == "churn" else _sides_trouble(rule, known)
    return trouble or find(rule, pairs, known.seed)


def identity(rule: Rule | Asked) -> dict[str, Any]:
    """Return what a rule asks, as verdict.json has it."""
    if isinstance(rule, Asked):
        return {"check": rule.name, "metric": None, "severity": rule.severity}
    asked = asdict(rule)
    pattern = asked.pop("slices")
    return {**asked, "pattern": pattern, "slice": None if pattern else rule.slice}


def _judge_rule(rule: Rule, known: _Evidence) -> _Outcome:
    student, other = known.sides(rule)
    measured, reference = _number(student), _number(other)
    value: float | None = None
    trouble = _sides_trouble(rule, known)
    if trouble is None:
        value, trouble = _compare(rule, measured, reference)
    if trouble is not None or value is None:
        result, words = "hold", f"{subject(rule)}: cannot be decided: {trouble}"
    else:
        result, words = ("pass" if keeps(rule, value) else "fail"), _sentence(rule, value, measured, reference)
    return _Outcome(result, words, value, measured, reference, student.support if student else None)


def _sides_trouble(rule: Rule, known: _Evidence) -> str | None:
    """Return why the measurements of student or of the other model prove nothing, or None."""
    student, other = known.sides(rule)
    trouble = _trouble(rule, "the student", student)
    return trouble or (_trouble(rule, WHO.get(rule.versus, rule.versus), other) if rule.versus else None)


def _number(measurement: Measurement | None) -> float | None:
    """Return the value as a finite float, or None."""
    value = measurement.value if measurement else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _trouble(rule: Rule, who: str, measurement: Measurement | None) -> str | None:
    """Return why this evidence proves nothing, or None."""
    if measurement is None:
        return f"there is no measurement of {who}"
    if measurement.doubt is not None:
        return measurement.doubt
    number = _number(measurement)
    if number is None:
        return f"{measurement.value!r} of {who} is not a finite number"
    support = measurement.support
    if support is not None and (isinstance(support, bool) or not isinstance(support, int) or support < 1):
        return f"{who} was measured on no rows"
    if support is not None and support < rule.min_support:
        return f"{support} rows are too few; at least {rule.min_support} are asked"
    low, high = (0.0, 1.0) if rule.metric in SHARES else (0.0, math.inf)
    if not low <= number <= high or (rule.metric in COUNTS and number == 0):
        return f"{number:g} of {who} is impossible for this metric"
    return None


def _compare(rule: Rule, measured: float | None, reference: float | None) -> tuple[float | None, str | None]:
    """Return the number the bound is about, or why there is none."""
    trouble = _bound_trouble(rule)
    if trouble is not None:
        return None, trouble
    if measured is None or (rule.versus and reference is None):
        return None, "a measurement is missing"
    if rule.bound in ("min", "max"):
        return measured, None
    if reference is None:
        return None, f"{rule.bound} needs something to compare with"
    if rule.bound in ("min_ratio", "max_ratio"):
        if reference <= 0:
            return None, f"a ratio to {reference:g} says nothing"
        ratio = measured / reference
        return (ratio, None) if math.isfinite(ratio) else (None, f"the ratio to {reference:g} is not finite")
    return (measured - reference if rule.bound == "min_gain" else reference - measured), None


def _bound_trouble(rule: Rule) -> str | None:
    if math.isfinite(rule.threshold):
        return None
    return f"the bound {rule.bound}: {rule.threshold} is not a finite number"


def _sentence(rule: Rule, value: float, measured: float | None, reference: float | None) -> str:
    assert measured is not None  # a rule without trouble has its measurement
    most = "at least" if rule.bound.startswith("min") else "at most"
    got = f"{subject(rule)}: {formatted(rule.metric, measured)}"
    if rule.bound in ("min", "max"):
        return f"{got}; {most} {formatted(rule.metric, rule.threshold)} is asked"
    assert reference is not None
    other = f"{possessive(rule.versus)} {formatted(rule.metric, reference)}"
    if rule.bound in ("min_ratio", "max_ratio"):
        return f"{got}, {100 * value:.1f} % of {other}; {most} {100 * rule.threshold:g} % is asked"
    change = measured - reference
    direction = "above" if change >= 0 else "below"
    if rule.metric in SHARES:
        wanted = "points above" if rule.bound == "min_gain" else "points below"
        return f"{got}, {points(change)} {other}; {most} {100 * rule.threshold:g} {wanted} is asked"
    wanted = "above" if rule.bound == "min_gain" else "below"
    return f"{got}, {formatted(rule.metric, abs(change))} {direction} {other}; {most} {rule.threshold:g} {wanted} is asked"
