"""Gate rules: evidence in, a verdict out. A verdict is data, never an exit code.

Each rule ends as pass, fail or hold. Hold means that it cannot be decided: evidence missing, not finite, of the wrong
type, doubtful, on too few rows, or not enough for the proof that is asked. A hold is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final

from tasks.gates.paired import BlockPairs, Pairs
from tasks.gates.proof import Finding, decide, describe, find
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

PairKey = tuple[str, str, str]  # (versus, set, slice)
Paired = Pairs | BlockPairs | str  # what two models say of the same rows or blocks, or why that is not known
_WORST: Final = ("pass", "hold", "fail")


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
    judged = [
        _judge_check(rule, (answers or {}).get(rule.name))
        if isinstance(rule, Asked)
        else _judge_slices(rule, evidence, pairs or {}, (slices or {}).get(rule.set or "", ()), seed)
        for rule in rules
    ]
    results = [one["result"] for one in judged if one["severity"] == "block"]
    verdict = "pass" if results and all(result == "pass" for result in results) else "hold"
    if "fail" in results:
        verdict = "fail"
    warned = sum(one["severity"] == "warn" and one["result"] != "pass" for one in judged)
    return {"verdict": verdict, "sentence": _overall(results, warned), "rules": judged}


def _overall(results: list[str], warned: int) -> str:
    if not results:
        return "hold: no rule with severity block is asked, so nothing is proven"
    counts = [
        f"{results.count(name)} {words}"
        for name, words in (("pass", "kept"), ("fail", "broken"), ("hold", "undecided"))
        if name in results
    ]
    start = f"of {len(results)} blocking rules {', '.join(counts)}"
    if results.count("pass") == len(results):
        start = f"all {len(results)} blocking rules are kept"
    tail = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    return start + tail


def _judge_check(check: Asked, answer: Answer | None) -> dict[str, Any]:
    """Return what a check found; one that nobody answered, or not with a result there is, is a hold."""
    if answer is None or answer.result not in _WORST:
        answer = Answer("hold", "cannot be decided: nobody looked")
    return {**identity(check), "result": answer.result, "sentence": f"{check.name}: {answer.sentence}"}


def _judge_slices(
    rule: Rule, evidence: Mapping[Key, Measurement], pairs: Mapping[PairKey, Paired], names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Return the result of a rule; over a pattern of slices that of the worst one, with every slice's below `slices`."""
    parts = rule.of_slices(names)
    if not parts:
        return _entry(rule, "hold", f"{subject(rule)}: cannot be decided: no slice is called {rule.slices!r}")
    judged = _judge_pairs(parts, evidence, pairs, seed) if rule.is_paired else [_judge_rule(p, evidence) for p in parts]
    if rule.slices is None:
        return judged[0]
    worst = max(judged, key=lambda one: (_WORST.index(one["result"]), _excess(rule, one["value"])))
    keys = ("slice", "value", "low", "high", "support", "p_value", "result", "sentence")
    counts = [
        f"{sum(one['result'] == name for one in judged)} {words}"
        for name, words in (("pass", "kept"), ("fail", "broken"), ("hold", "undecided"))
        if name in [one["result"] for one in judged]
    ]
    sentence = f"{', '.join(counts)} of {len(parts)} slices {rule.slices!r}; worst: {worst['sentence']}"
    return {
        **worst,
        **identity(rule),
        "worst_slice": worst["slice"],
        "sentence": sentence,
        "slices": [{key: one[key] for key in keys} for one in judged],
    }


def _excess(rule: Rule, value: float | None) -> float:
    """Return how far a value is on the wrong side of the bound; without a value nothing is worse."""
    if value is None:
        return math.inf
    return rule.threshold - value if rule.bound.startswith("min") else value - rule.threshold


def _judge_pairs(
    rules: list[Rule], evidence: Mapping[Key, Measurement], pairs: Mapping[PairKey, Paired], seed: int
) -> list[dict[str, Any]]:
    """Return the results of paired rules of one family."""
    found: list[Finding | str] = []
    counts: list[Pairs | BlockPairs | None] = []
    for rule in rules:
        given = pairs.get((rule.versus or "", rule.set or "", rule.slice), "there are no predictions to pair")
        if isinstance(given, Pairs) and not given.possible:
            given = f"{given} cannot be counts of rows"
        if not isinstance(given, str) and given.rows < max(1, rule.min_support):
            given = f"{given.rows} rows are too few; at least {rule.min_support} are asked"
        trouble = _bound_trouble(rule)
        if trouble is None and not isinstance(given, str) and rule.metric != "churn":
            trouble = _pair_trouble(rule, evidence)
        counts.append(None if isinstance(given, str) else given)
        found.append(trouble or (given if isinstance(given, str) else find(rule, given, seed)))
    entries = []
    for rule, one, count, (result, p_value) in zip(rules, found, counts, decide(rules, found), strict=True):
        if isinstance(one, str) or count is None:
            entries.append(_entry(rule, result, f"{subject(rule)}: cannot be decided: {one}"))
            continue
        measured = _number(evidence.get(("student", rule.metric, rule.set, rule.slice)))
        reference = _number(evidence.get((rule.versus or "", rule.metric, rule.set, rule.slice)))
        words = describe(rule, count, measured or 0.0, reference or 0.0, one, result)
        entries.append(
            _entry(
                rule,
                result,
                words,
                one.value,
                measured,
                reference,
                one.support,
                low=one.low,
                high=one.high,
                p_value=p_value,
            )
        )
    return entries


def _pair_trouble(rule: Rule, evidence: Mapping[Key, Measurement]) -> str | None:
    """Return why the measurements behind the pairs prove nothing: a metric must be sound before its difference is."""
    mine = evidence.get(("student", rule.metric, rule.set, rule.slice))
    theirs = evidence.get((rule.versus or "", rule.metric, rule.set, rule.slice))
    return _trouble(rule, "the student", mine) or _trouble(rule, WHO.get(rule.versus or "", str(rule.versus)), theirs)


def _entry(
    rule: Rule,
    result: str,
    sentence: str,
    value: float | None = None,
    measured: float | None = None,
    reference: float | None = None,
    support: int | None = None,
    low: float | None = None,
    high: float | None = None,
    p_value: float | None = None,
) -> dict[str, Any]:
    """Return a rule as asked, with what came of it."""
    return {
        **identity(rule),
        "value": value,
        "low": low,
        "high": high,
        "p_value": p_value,
        "measured": measured,
        "reference": reference,
        "support": support,
        "result": result,
        "sentence": sentence,
    }


def identity(rule: Rule | Asked) -> dict[str, Any]:
    """Return what a rule asks, as verdict.json has it."""
    if isinstance(rule, Asked):
        return {"check": rule.name, "metric": None, "severity": rule.severity}
    return {
        "metric": rule.metric,
        "set": rule.set,
        "slice": None if rule.slices else rule.slice,
        "pattern": rule.slices,
        "versus": rule.versus,
        "bound": rule.bound,
        "threshold": rule.threshold,
        "severity": rule.severity,
        "test": rule.test,
        "confidence": rule.confidence,
        "prove": rule.prove,
        "min_support": rule.min_support,
        "resamples": rule.resamples,
    }


def _judge_rule(rule: Rule, evidence: Mapping[Key, Measurement]) -> dict[str, Any]:
    mine = evidence.get(("student", rule.metric, rule.set, rule.slice))
    theirs = evidence.get((rule.versus, rule.metric, rule.set, rule.slice)) if rule.versus else None
    measured, reference = _number(mine), _number(theirs)
    value: float | None = None
    trouble = _trouble(rule, "the student", mine)
    if rule.versus:
        trouble = trouble or _trouble(rule, WHO.get(rule.versus, rule.versus), theirs)
    if trouble is None:
        value, trouble = _compare(rule, measured, reference)
    if trouble is not None or value is None:
        result, words = "hold", f"{subject(rule)}: cannot be decided: {trouble}"
    else:
        result, words = ("pass" if keeps(rule, value) else "fail"), _sentence(rule, value, measured, reference)
    return _entry(rule, result, words, value, measured, reference, mine.support if mine else None)


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
    return (
        f"{got}, {formatted(rule.metric, abs(change))} {direction} {other}; {most} {rule.threshold:g} {wanted} is asked"
    )
