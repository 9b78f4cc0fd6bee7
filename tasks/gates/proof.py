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
    found = TESTS[rule.test](pairs, margin, confidence, rule.resamples, seed)
    ends = sorted((sign * found.low, sign * found.high))
    p_value = found.p_value if rule.prove == "kept" else found.p_broken
    return Finding(sign * found.value, ends[0], ends[1], pairs.rows, p_value)


def decide(rules: list[Rule], findings: list[Finding | str]) -> list[tuple[str, float | None]]:
    """Return result and p-value of each rule of one family (the slices of a rule); a string says why there is no finding.

    p-values are adjusted after Holm over the whole family, undecided slices counted.
    """
    raw = [1.0 if isinstance(one, str) or one.p_value is None else one.p_value for one in findings]
    adjusted = holm(raw)
    return [_decide(rule, one, p_value) for rule, one, p_value in zip(rules, findings, adjusted, strict=True)]


def _decide(rule: Rule, found: Finding | str, p_value: float) -> tuple[str, float | None]:
    if isinstance(found, str):
        return "hold", None
    kept = keeps(rule, found.value)
    if rule.confidence is None:
        return ("pass" if kept else "fail"), None
    if found.p_value is None:  # churn: the exact upper bound is the proof
        shown = keeps(rule, found.high)
        return ("fail" if not kept else "pass" if shown else "hold"), None
    shown = p_value <= 1.0 - rule.confidence
    if rule.prove == "broken":
        return ("fail" if shown and not kept else "pass"), p_value
    return ("fail" if not kept else "pass" if shown else "hold"), p_value


def describe(
    rule: Rule, pairs: Pairs | BlockPairs, measured: float, reference: float, found: Finding, result: str
) -> str:
    """Return what was found and asked, in words."""
    if isinstance(pairs, BlockPairs):
        return _describe_ratio(rule, pairs, measured, reference, found, result)
    if rule.metric == "churn":
        return _describe_churn(rule, pairs, found, result)
    asked = f"at {'most' if rule.bound == 'max_drop' else 'least'} {100 * rule.threshold:g} points " + (
        "below" if rule.bound == "max_drop" else "above"
    )
    sign = -1.0 if rule.bound == "max_drop" else 1.0
    start = (
        f"{subject(rule)}: {formatted(rule.metric, measured)}, {points(sign * found.value)} {possessive(rule.versus)} "
        f"{formatted(rule.metric, reference)} on {pairs.rows} rows ({pairs.lost} lost, {pairs.gained} gained)"
    )
    assert rule.confidence is not None
    ends = sorted((sign * found.low, sign * found.high))
    sure = f"with {100 * rule.confidence:g} % confidence no worse than {points(ends[0])}"
    if rule.prove == "broken":
        sure = f"with {100 * rule.confidence:g} % confidence no better than {points(ends[1])}"
    if result == "hold":
        return f"{start}; {sure}, which does not show the {asked} that is asked: more rows or a better model would"
    return f"{start}; {sure}; {asked} is asked"


def _describe_ratio(
    rule: Rule, pairs: BlockPairs, measured: float, reference: float, found: Finding, result: str
) -> str:
    assert rule.confidence is not None  # blocks are paired for a proof alone
    start = (
        f"{subject(rule)}: {formatted(rule.metric, measured)}, {100 * found.value:.1f} % of {possessive(rule.versus)} "
        f"{formatted(rule.metric, reference)} on {pairs.rows} blocks of {int(pairs.tokens_N.sum()):,} tokens"
    )
    least = rule.prove == "broken"
    end = f"{'least' if least else 'most'} {100 * (found.low if least else found.high):.1f} %"
    asked = f"at most {100 * rule.threshold:g} % is asked"
    more = ", which is not shown: more blocks or a better model would" if result == "hold" else ""
    return f"{start}; with {100 * rule.confidence:g} % confidence at {end}; {asked}{more}"


def _describe_churn(rule: Rule, pairs: Pairs, found: Finding, result: str) -> str:
    start = (
        f"{subject(rule)}: {pairs.flipped} of {pairs.rows} rows, {100 * found.value:.1f} %, differ from "
        f"{possessive(rule.versus)} predictions"
    )
    asked = f"at most {100 * rule.threshold:g} % is asked"
    if rule.confidence is None:
        return f"{start}; {asked}"
    sure = f"with {100 * rule.confidence:g} % confidence at most {100 * found.high:.1f} %"
    return f"{start}; {sure}; {asked}" + (", which is not shown: more rows would" if result == "hold" else "")
