"""Perplexity ratios and repetition: what they are, that the proof keeps its word, and what proves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.language import MIN_WINDOWS, Ratio, perplexity, perplexity_ratio, repetition_rate

SEEDS = st.integers(0, 2**32 - 1)


def windows(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 200, count)
    hard = rng.gamma(4.0, 1.0, count)
    return tokens * hard, tokens * hard * rng.uniform(0.9, 1.1, count), tokens


def ratio(*arguments: object, **named: object) -> Ratio:
    found = perplexity_ratio(*arguments, **named)
    assert isinstance(found, Ratio), found
    return found


@given(SEEDS)
def test_the_ratio_is_that_of_the_perplexities(seed: int) -> None:
    mine, theirs, tokens = windows(seed)
    found = ratio(mine, theirs, tokens, 1.1, resamples=200)
    assert found.value == pytest.approx(perplexity(mine, tokens) / perplexity(theirs, tokens))
    assert found.low <= found.value <= found.high
    assert (found.windows, found.tokens) == (60, tokens.sum())


@given(SEEDS)
def test_a_model_beside_itself_is_exactly_as_good(seed: int) -> None:
    mine, _, tokens = windows(seed)
    found = ratio(mine, mine, tokens, 1.01, resamples=200)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert (found.p_value, found.p_broken) == (1 / 201, 1.0)
    assert ratio(mine, mine, tokens, 1.0, resamples=200).p_value == 1.0  # on the bound nothing is shown


@given(SEEDS, st.floats(1.01, 2.0))
def test_a_bound_twice_as_generous_is_never_harder_to_show(seed: int, bound: float) -> None:
    mine, theirs, tokens = windows(seed)
    strict, generous = (ratio(mine, theirs, tokens, one, resamples=200, seed=1) for one in (bound, 2 * bound))
    assert generous.p_value <= strict.p_value
    assert generous.p_broken >= strict.p_broken
    assert (strict.low, strict.high) == (generous.low, generous.high)


@given(SEEDS, st.sampled_from([0.9, 0.95]))
def test_interval_and_p_value_agree(seed: int, confidence: float) -> None:
    mine, theirs, tokens = windows(seed)
    found = ratio(mine, theirs, tokens, 1.01, confidence, resamples=999, seed=2)
    assert (found.p_value <= 1 - confidence + 1e-9) == (found.high < 1.01)
    assert (found.p_broken <= 1 - confidence + 1e-9) == (found.low > 1.01)


def test_at_most_five_in_a_hundred_are_passed_that_are_just_not_allowed() -> None:
    rng, passed, models = np.random.default_rng(0), 0, 400
    for number in range(models):
        tokens = rng.integers(50, 150, 200)
        theirs = tokens * rng.gamma(4.0, 1.0, 200)
        mine = theirs + tokens * (math.log(1.05) + rng.normal(0.0, 0.2, 200))  # truly at the bound
        passed += ratio(np.maximum(mine, 0.0), theirs, tokens, 1.05, resamples=400, seed=number).p_value <= 0.05
    assert passed / models <= 0.08  # 5 %, and two standard errors and a half


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_sum_proves_nothing(value: float, side: int) -> None:
    given_ = list(windows(3))
    given_[side][7] = value
    assert "not a finite number of nats" in str(perplexity_ratio(*given_, 1.1))


def test_other_windows_few_windows_and_empty_ones_prove_nothing() -> None:
    mine, theirs, tokens = windows(4)
    assert "other windows" in str(perplexity_ratio(mine[1:], theirs, tokens, 1.1))
    few = MIN_WINDOWS - 1
    assert "too few" in str(perplexity_ratio(mine[:few], theirs[:few], tokens[:few], 1.1))
    assert "too few" in str(perplexity_ratio(mine[:0], theirs[:0], tokens[:0], 1.1))
    assert "no tokens" in str(perplexity_ratio(mine, theirs, np.zeros_like(tokens), 1.1))
    assert "no tokens" in str(perplexity_ratio(mine, theirs, tokens.astype(float), 1.1))
    for bound in (math.nan, math.inf, 0.0, -1.0):
        assert "is no ratio" in str(perplexity_ratio(mine, theirs, tokens, bound))


@given(st.lists(st.lists(st.integers(0, 3), max_size=30), max_size=5), st.integers(1, 5))
def test_repetition_is_a_share(samples: list[list[int]], n: int) -> None:
    rate = repetition_rate(samples, n)
    assert (rate is None) == all(len(one) < n for one in samples)
    if rate is not None:
        assert 0.0 <= rate < 1.0


def test_repetition_of_known_texts() -> None:
    assert repetition_rate([[1, 2, 3, 4, 5, 6]]) == 0.0
    assert repetition_rate([[7] * 10]) == pytest.approx(6 / 7)  # seven 4-grams, one of them new
    assert repetition_rate([[7] * 10, [1, 2, 3, 4], [1]]) == pytest.approx(3 / 7)  # the last has no 4-gram
    assert repetition_rate([]) is None
