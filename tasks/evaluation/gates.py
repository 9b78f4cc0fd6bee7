"""Gate rules: evidence in, a verdict out. A verdict is data, never an exit code.

Each rule ends as pass, fail or hold. Hold means that it cannot be decided: evidence missing, not finite, of the wrong
type, doubtful, or without rows. A hold is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

BOUNDS: Final = ("min", "max", "min_ratio", "max_ratio", "min_gain", "max_drop")

# metric -> does it belong to an evaluation set (and so needs `set`)?
METRICS: Final[dict[str, bool]] = {
    "accuracy": True,
    "macro_f1": True,
    "nll_nats_per_example": True,
    "calibration_error": True,
    "agreement": True,
    "params_total": False,
    "params_non_embedding": False,
    "size_bytes": False,
    "flops_per_example": False,
    "latency_ms_p50_batch_1": False,
    "load_back_max_difference": False,
    "onnx_max_difference": False,
}

_SHARES: Final = frozenset({"accuracy", "macro_f1", "calibration_error", "agreement"})
_COUNTS: Final = frozenset(
    {"params_total", "params_non_embedding", "size_bytes", "flops_per_example", "latency_ms_p50_batch_1"}
)
_ROUNDING: Final = 1e-12  # 0.83 - 0.80 is a little less than 0.03 in floating point
_NAMES: Final = {
    "nll_nats_per_example": "negative log-likelihood (nats per example)",
    "params_total": "total parameters",
    "params_non_embedding": "non-embedding parameters",
    "size_bytes": "bytes of the weights",
    "flops_per_example": "FLOPs per example",
    "latency_ms_p50_batch_1": "median latency at batch 1 (ms)",
    "load_back_max_difference": "largest difference of logits after loading back",
    "onnx_max_difference": "largest difference of logits in ONNX",
    "macro_f1": "macro-F1",
}
_WHO: Final = {"teacher": "the teacher", "tfidf_logistic": "TF-IDF + logistic regression"}

Key = tuple[str, str, str | None, str]  # (who, metric, set, slice); who: student, teacher or a rival


@dataclass(frozen=True)
class Rule:
    """One rule of params.yaml: a metric, what it is compared with, one bound, and whether it blocks or warns."""

    metric: str
    set: str | None
    slice: str
    versus: str | None
    bound: str
    threshold: float
    severity: str


@dataclass(frozen=True)
class Measurement:
    """A measured value, on how many rows (None: not a matter of rows), and a sentence if it cannot be trusted."""

    value: object
    support: int | None = None
    doubt: str | None = None


def judge(rules: Sequence[Rule], evidence: Mapping[Key, Measurement]) -> dict[str, Any]:
    """Return `verdict` (pass, fail or hold), its `sentence`, and the `rules` with value, result and sentence each.

    fail: a block rule fails; else hold: a block rule holds, or there is none; else pass. Warn rules change nothing.
    """
    judged = [_judge_rule(rule, evidence) for rule in rules]
    results = [one["result"] for one in judged if one["severity"] == "block"]
    verdict = "pass" if results and all(result == "pass" for result in results) else "hold"
    if "fail" in results:
        verdict = "fail"
    warned = sum(one["severity"] == "warn" and one["result"] != "pass" for one in judged)
    return {"verdict": verdict, "sentence": _overall(results, warned), "rules": judged}


def _overall(results: list[str], warned: int) -> str:
    if not results:
        return "hold: no rule with severity block is asked, so nothing is proven"
    counts = [f"{results.count(name)} {words}" for name, words in
              (("pass", "kept"), ("fail", "broken"), ("hold", "undecided")) if name in results]  # fmt: skip
    start = f"of {len(results)} blocking rules {', '.join(counts)}"
    if results.count("pass") == len(results):
        start = f"all {len(results)} blocking rules are kept"
    tail = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    return start + tail


def _judge_rule(rule: Rule, evidence: Mapping[Key, Measurement]) -> dict[str, Any]:
    mine = evidence.get(("student", rule.metric, rule.set, rule.slice))
    theirs = evidence.get((rule.versus, rule.metric, rule.set, rule.slice)) if rule.versus else None
    measured, reference = _number(mine), _number(theirs)
    value: float | None = None
    trouble = _trouble(rule, "the student", mine)
    if rule.versus:
        trouble = trouble or _trouble(rule, _WHO.get(rule.versus, rule.versus), theirs)
    if trouble is None:
        value, trouble = _compare(rule, measured, reference)
    if trouble is not None or value is None:
        result, words = "hold", f"{_subject(rule)}: cannot be decided: {trouble}"
    else:
        result, words = ("pass" if _keeps(rule, value) else "fail"), _sentence(rule, value, measured, reference)
    return {
        "metric": rule.metric, "set": rule.set, "slice": rule.slice, "versus": rule.versus, "bound": rule.bound,
        "threshold": rule.threshold, "severity": rule.severity, "value": value, "measured": measured,
        "reference": reference, "support": mine.support if mine else None, "result": result, "sentence": words,
    }  # fmt: skip


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
    low, high = (0.0, 1.0) if rule.metric in _SHARES else (0.0, math.inf)
    if not low <= number <= high or (rule.metric in _COUNTS and number == 0):
        return f"{number:g} of {who} is impossible for this metric"
    return None


def _compare(rule: Rule, measured: float | None, reference: float | None) -> tuple[float | None, str | None]:
    """Return the number the bound is about, or why there is none."""
    if not math.isfinite(rule.threshold):
        return None, f"the bound {rule.bound}: {rule.threshold} is not a finite number"
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


def _keeps(rule: Rule, value: float) -> bool:
    if rule.bound.startswith("min"):
        return value >= rule.threshold - _ROUNDING
    return value <= rule.threshold + _ROUNDING


def _sentence(rule: Rule, value: float, measured: float | None, reference: float | None) -> str:
    assert measured is not None  # a rule without trouble has its measurement
    most = "at least" if rule.bound.startswith("min") else "at most"
    got = f"{_subject(rule)}: {_format(rule.metric, measured)}"
    if rule.bound in ("min", "max"):
        return f"{got}; {most} {_format(rule.metric, rule.threshold)} is asked"
    assert reference is not None
    other = f"{_possessive(rule.versus)} {_format(rule.metric, reference)}"
    if rule.bound in ("min_ratio", "max_ratio"):
        return f"{got}, {100 * value:.1f} % of {other}; {most} {100 * rule.threshold:g} % is asked"
    change = measured - reference
    direction = "above" if change >= 0 else "below"
    if rule.metric in _SHARES:
        points = f"{100 * abs(change):.1f} points {direction} {other}"
        wanted = "points above" if rule.bound == "min_gain" else "points below"
        return f"{got}, {points}; {most} {100 * rule.threshold:g} {wanted} is asked"
    wanted = "above" if rule.bound == "min_gain" else "below"
    return (
        f"{got}, {_format(rule.metric, abs(change))} {direction} {other}; {most} {rule.threshold:g} {wanted} is asked"
    )


def _subject(rule: Rule) -> str:
    place = f" on {rule.set}" if rule.set else ""
    part = f" ({rule.slice})" if rule.set and rule.slice != "overall" else ""
    return f"{_NAMES.get(rule.metric, rule.metric.replace('_', ' '))}{place}{part}"


def _possessive(versus: str | None) -> str:
    return {"teacher": "the teacher's", "tfidf_logistic": "the TF-IDF baseline's"}.get(versus or "", f"{versus}'s")


def _format(metric: str, number: float) -> str:
    """Return a number as people write it: shares with three decimals, counts in groups of three."""
    if metric in _SHARES or metric == "nll_nats_per_example":
        return f"{number:.3f}"
    if metric.endswith("_difference"):
        return f"{number:.2g}".replace("e-0", "e-")
    return f"{number:.2f}" if "latency" in metric else f"{number:,.0f}"
