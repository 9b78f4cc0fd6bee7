"""Rules about pairs: two models' predictions on the same rows, with an interval and, where asked, a proof."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.gates.paired import TESTS, BlockPairs, Estimate, Pairs, holm, perplexity_ratio
from tasks.gates.rules import Rule, formatted, keeps, points, possessive, subject
from tasks.gates.unlike import Hits, Values, of_mean, of_share
from tasks.measuring.shares import share_interval

MIN_GROUPS: Final = 30  # fewer say little of how groups vary
REPORTED_CONFIDENCE: Final = 0.95  # of the interval that is shown where the rule asks for none


Known = Pairs | BlockPairs | Hits | Values


@dataclass(frozen=True)
class Finding:
    """What the pairs of one rule say on one slice; `p_value` is that of the statement the rule wants proven."""

    value: float
    low: float
    high: float
    p_value: float | None
    pairs: Known


def find(rule: Rule, pairs: Known, seed: int) -> Finding | str:
    """Return what the pairs say, or why they prove nothing.

    `value` is what the bound is about: a drop, a gain, a share of flipped rows, or a ratio of perplexities.
    """
    confidence = rule.confidence or REPORTED_CONFIDENCE
    if not isinstance(pairs, Pairs):
        found = _estimate(rule, pairs, confidence, seed)
        if isinstance(found, str):
            return found
        return Finding(found.value, found.low, found.high, found.p_value if rule.prove == "kept" else found.p_broken, pairs)
    if rule.metric == "churn":
        low, high = share_interval(pairs.flipped, pairs.rows, confidence)
        return Finding(pairs.flipped / pairs.rows, low, high, None, pairs)
    assert rule.test is not None  # the schema asks for it
    if pairs.groups and pairs.units < MIN_GROUPS:
        return f"{pairs.units} groups of rows that share a text are too few; at least {MIN_GROUPS} are needed for a proof"
    sign = -1.0 if rule.bound == "max_drop" else 1.0
    margin = -sign * rule.threshold
    difference = TESTS[rule.test](pairs, margin, confidence, rule.resamples, seed)
    low, high = sorted((sign * difference.low, sign * difference.high))
    p_value = difference.p_value if rule.prove == "kept" else difference.p_broken
    return Finding(sign * difference.value, low, high, p_value, pairs)


def _estimate(rule: Rule, pairs: BlockPairs | Hits | Values, confidence: float, seed: int) -> Estimate | str:
    if isinstance(pairs, BlockPairs):
        return perplexity_ratio(pairs, rule.threshold, confidence, rule.resamples, seed)
    if isinstance(pairs, Hits):
        return of_share(pairs, rule.threshold, rule.bound == "min", confidence)
    return of_mean(pairs, rule.threshold, confidence, rule.resamples, seed)


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


def describe(rule: Rule, finding: Finding, measured: float, reference: float, result: str) -> str:
    """Return what was found and asked, in words; `measured` and `reference` are the metric of both models."""
    pairs = finding.pairs
    if isinstance(pairs, Pairs) and rule.metric == "churn":
        return _describe_churn(rule, finding, pairs, result)
    assert rule.confidence is not None  # the schema asks for it
    sure, broken = f"with {100 * rule.confidence:g} % confidence", rule.prove == "broken"
    if isinstance(pairs, Hits | Values):
        return _describe_unlike(rule, finding, pairs, f"{sure} at", result)
    start, other = f"{subject(rule)}: {formatted(rule.metric, measured)}", formatted(rule.metric, reference)
    if isinstance(pairs, BlockPairs):
        end = f"least {100 * finding.low:.1f} %" if broken else f"most {100 * finding.high:.1f} %"
        more = ", which is not shown: more blocks or a better model would" if result == "hold" else ""
        return (
            f"{start}, {100 * finding.value:.1f} % of {possessive(rule.versus)} {other} on {pairs.rows} blocks of "
            f"{int(pairs.tokens_N.sum()):,} tokens; {sure} at {end}; at most {100 * rule.threshold:g} % is asked{more}"
        )
    drop = rule.bound == "max_drop"
    sign = -1.0 if drop else 1.0
    low, high = sorted((sign * finding.low, sign * finding.high))
    asked = f"at {'most' if drop else 'least'} {100 * rule.threshold:g} points {'below' if drop else 'above'}"
    end = f"better than {points(high)}" if broken else f"worse than {points(low)}"
    tail = f"; {asked} is asked"
    if result == "hold":
        tail = f", which does not show the {asked} that is asked: more rows or a better model would"
    return (
        f"{start}, {points(sign * finding.value)} {possessive(rule.versus)} {other} on {pairs.rows} rows "
        f"{_in_groups(pairs)}({pairs.lost} lost, {pairs.gained} gained); {sure} no {end}{tail}"
    )


def _in_groups(pairs: Pairs) -> str:
    return f"in {pairs.units:,} groups " if pairs.groups else ""


def _describe_unlike(rule: Rule, finding: Finding, pairs: Hits | Values, sure: str, result: str) -> str:
    lowest = (rule.bound == "min") == (rule.prove == "kept")
    end = f"least {formatted(rule.metric, finding.low)}" if lowest else f"most {formatted(rule.metric, finding.high)}"
    asked = f"at {'least' if rule.bound == 'min' else 'most'} {formatted(rule.metric, rule.threshold)} is asked"
    more = ", which is not shown: more rows or a better model would" if result == "hold" else ""
    return f"{subject(rule)}: {formatted(rule.metric, finding.value)} on {pairs.rows} rows; {sure} {end}; {asked}{more}"


def _describe_churn(rule: Rule, finding: Finding, pairs: Pairs, result: str) -> str:
    start = (
        f"{subject(rule)}: {pairs.flipped} of {pairs.rows} rows, {100 * finding.value:.1f} %, differ from "
        f"{possessive(rule.versus)} predictions"
    )
    asked = f"at most {100 * rule.threshold:g} % is asked"
    if rule.confidence is None:
        return f"{start}; {asked}"
    sure = f"with {100 * rule.confidence:g} % confidence at most {100 * finding.high:.1f} %"
    return f"{start}; {sure}; {asked}" + (", which is not shown: more rows would" if result == "hold" else "")
