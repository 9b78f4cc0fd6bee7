"""Rules about pairs: two models' predictions on the same rows, with an interval and, where asked, a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.gates.paired import TESTS, BlockPairs, Pairs, holm, perplexity_ratio, share_interval
from tasks.gates.rules import Rule, formatted, keeps, points, possessive, subject

REPORTED_CONFIDENCE: Final = 0.95  # of the interval that is shown where the rule asks for none


@dataclass(frozen=True)
class Finding:
    """What one rule found on one slice; `p_value` is that of the statement the rule wants proven."""

    value: float
    low: float
    high: float
    support: int
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """What a sentence tells: both models' metric, the finding on their pairs, and the result."""

    measured: float
    reference: float
    finding: Finding
    result: str


def find(rule: Rule, pairs: Pairs | BlockPairs, seed: int) -> Finding | str:
    """Return what the pairs say, or why they prove nothing.

    `value` is what the bound is about: a drop, a gain, a share of flipped rows, or a ratio of perplexities.
    """
    confidence = rule.confidence or REPORTED_CONFIDENCE
    if isinstance(pairs, BlockPairs):
        ratio = perplexity_ratio(pairs, rule.threshold, confidence, rule.resamples, seed)
        if isinstance(ratio, str):
            return ratio
        p_value = ratio.p_value if rule.prove == "kept" else ratio.p_broken
        return Finding(ratio.value, ratio.low, ratio.high, pairs.rows, p_value)
    if rule.metric == "churn":
        low, high = share_interval(pairs.flipped, pairs.rows, confidence)
        return Finding(pairs.flipped / pairs.rows, low, high, pairs.rows, None)
    assert rule.test is not None  # the schema asks for it
    sign = -1.0 if rule.bound == "max_drop" else 1.0
    margin = -sign * rule.threshold
    difference = TESTS[rule.test](pairs, margin, confidence, rule.resamples, seed)
    low, high = sorted((sign * difference.low, sign * difference.high))
    p_value = difference.p_value if rule.prove == "kept" else difference.p_broken
    return Finding(sign * difference.value, low, high, pairs.rows, p_value)


def decide(rules: list[Rule], findings: list[Finding | str]) -> list[tuple[str, float | None]]:
    """Return result and p-value of each rule of one family (the slices of a rule); a string says why there is no finding.

    p-values are adjusted after Holm over the whole family, undecided slices counted.
    """
    raw = [1.0 if isinstance(finding, str) or finding.p_value is None else finding.p_value for finding in findings]
    return [_decide(*each) for each in zip(rules, findings, holm(raw), strict=True)]


def _decide(rule: Rule, finding: Finding | str, p_value: float) -> tuple[str, float | None]:
    if isinstance(finding, str):
        return "hold", None
    kept = keeps(rule, finding.value)
    if rule.confidence is None:
        return ("pass" if kept else "fail"), None
    if finding.p_value is None:  # churn: the exact upper bound is the proof
        shown = keeps(rule, finding.high)
        return ("fail" if not kept else "pass" if shown else "hold"), None
    shown = p_value <= 1.0 - rule.confidence
    if rule.prove == "broken":
        return ("fail" if shown and not kept else "pass"), p_value
    return ("fail" if not kept else "pass" if shown else "hold"), p_value


def describe(rule: Rule, pairs: Pairs | BlockPairs, comparison: Comparison) -> str:
    """Return what was found and asked, in words."""
    if isinstance(pairs, BlockPairs):
        return _describe_ratio(rule, pairs, comparison)
    if rule.metric == "churn":
        return _describe_churn(rule, pairs, comparison)
    drop = rule.bound == "max_drop"
    sign = -1.0 if drop else 1.0
    asked = f"at {'most' if drop else 'least'} {100 * rule.threshold:g} points {'below' if drop else 'above'}"
    start = (
        f"{subject(rule)}: {formatted(rule.metric, comparison.measured)}, {points(sign * comparison.finding.value)} "
        f"{possessive(rule.versus)} {formatted(rule.metric, comparison.reference)} on {pairs.rows} rows "
        f"({pairs.lost} lost, {pairs.gained} gained)"
    )
    assert rule.confidence is not None
    low, high = sorted((sign * comparison.finding.low, sign * comparison.finding.high))
    end = f"better than {points(high)}" if rule.prove == "broken" else f"worse than {points(low)}"
    sure = f"with {100 * rule.confidence:g} % confidence no {end}"
    if comparison.result == "hold":
        return f"{start}; {sure}, which does not show the {asked} that is asked: more rows or a better model would"
    return f"{start}; {sure}; {asked} is asked"


def _describe_ratio(rule: Rule, pairs: BlockPairs, comparison: Comparison) -> str:
    assert rule.confidence is not None  # blocks are paired for a proof alone
    finding = comparison.finding
    start = (
        f"{subject(rule)}: {formatted(rule.metric, comparison.measured)}, {100 * finding.value:.1f} % of "
        f"{possessive(rule.versus)} {formatted(rule.metric, comparison.reference)} on {pairs.rows} blocks of "
        f"{int(pairs.tokens_N.sum()):,} tokens"
    )
    end = f"least {100 * finding.low:.1f} %" if rule.prove == "broken" else f"most {100 * finding.high:.1f} %"
    asked = f"at most {100 * rule.threshold:g} % is asked"
    more = ", which is not shown: more blocks or a better model would" if comparison.result == "hold" else ""
    return f"{start}; with {100 * rule.confidence:g} % confidence at {end}; {asked}{more}"


def _describe_churn(rule: Rule, pairs: Pairs, comparison: Comparison) -> str:
    start = (
        f"{subject(rule)}: {pairs.flipped} of {pairs.rows} rows, {100 * comparison.finding.value:.1f} %, differ from "
        f"{possessive(rule.versus)} predictions"
    )
    asked = f"at most {100 * rule.threshold:g} % is asked"
    if rule.confidence is None:
        return f"{start}; {asked}"
    sure = f"with {100 * rule.confidence:g} % confidence at most {100 * comparison.finding.high:.1f} %"
    return f"{start}; {sure}; {asked}" + (
        ", which is not shown: more rows would" if comparison.result == "hold" else ""
    )
