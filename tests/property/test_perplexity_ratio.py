"""Ratios of perplexities: what they are, that the proof keeps its word, and what proves nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.gates.paired import MIN_BLOCKS, BlockPairs, Estimate, perplexity_ratio
from tasks.measuring.perplexity import exponential, nll_per_token

SEEDS = st.integers(0, 2**32 - 1)


def blocks(seed: int, count: int = 60) -> BlockPairs:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 200, count)
    hard = rng.gamma(4.0, 1.0, count)
    return BlockPairs(tokens * hard, tokens * hard * rng.uniform(0.9, 1.1, count), tokens)


def ratio(pairs: BlockPairs, *arguments: float, **named: int) -> Estimate:
    found = perplexity_ratio(pairs, *arguments, **named)
    assert isinstance(found, Estimate), found
    return found


@given(SEEDS)
def test_the_ratio_is_that_of_the_perplexities(seed: int) -> None:
    pairs = blocks(seed)
    found = ratio(pairs, 1.1, resamples=200)
    mine, theirs = (nll_per_token(one, pairs.tokens_N) for one in (pairs.nll_nats_N, pairs.reference_nats_N))
    assert found.value == pytest.approx(math.exp(mine) / math.exp(theirs))
    assert found.low <= found.value <= found.high


@given(SEEDS)
def test_a_model_beside_itself_is_exactly_as_good(seed: int) -> None:
    pairs = blocks(seed)
    itself = BlockPairs(pairs.nll_nats_N, pairs.nll_nats_N, pairs.tokens_N)
    found = ratio(itself, 1.01, resamples=200)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert (found.p_value, found.p_broken) == (1 / 201, 1.0)
    assert ratio(itself, 1.0, resamples=200).p_value == 1.0  # on the bound nothing is shown


@given(SEEDS, st.floats(1.01, 2.0))
def test_a_bound_twice_as_generous_is_never_harder_to_show(seed: int, bound: float) -> None:
    strict, generous = (ratio(blocks(seed), one, resamples=200, seed=1) for one in (bound, 2 * bound))
    assert generous.p_value <= strict.p_value
    assert generous.p_broken >= strict.p_broken
    assert (strict.low, strict.high) == (generous.low, generous.high)


@given(SEEDS, st.sampled_from([0.9, 0.95]))
def test_interval_and_p_value_agree(seed: int, confidence: float) -> None:
    found = ratio(blocks(seed), 1.01, confidence, resamples=999, seed=2)
    assert (found.p_value <= 1 - confidence + 1e-9) == (found.high < 1.01)
    assert (found.p_broken <= 1 - confidence + 1e-9) == (found.low > 1.01)


def at_the_bound(rng: np.random.Generator, count: int, texts: int = 1) -> BlockPairs:
    """Return a model that is truly worse by a factor of 1.05; how much varies by text, of which each is some blocks."""
    tokens = rng.integers(50, 150, count)
    theirs = tokens * rng.gamma(4.0, 1.0, count)
    worse = math.log(1.05) + np.repeat(rng.normal(0.0, 0.2, count // texts), texts)
    return BlockPairs(np.maximum(theirs + tokens * worse, 0.0), theirs, tokens)


def test_at_most_five_in_a_hundred_are_passed_that_are_just_not_allowed() -> None:
    rng, models = np.random.default_rng(0), 400
    passed = sum(ratio(at_the_bound(rng, 200), 1.05, resamples=400, seed=number).p_value <= 0.05 for number in range(models))
    assert passed / models <= 0.08  # 5 %, and two standard errors and a half


def test_tokens_drawn_one_by_one_would_pass_far_more() -> None:
    """Why blocks are drawn: the tokens of a block share its difficulty, so they are no independent witnesses."""
    rng, models = np.random.default_rng(0), 60
    passed = 0
    for number in range(models):
        pairs = at_the_bound(rng, 40)
        each = (pairs.nll_nats_N - pairs.reference_nats_N) / pairs.tokens_N
        one_by_one = np.repeat(each, pairs.tokens_N)
        alone = BlockPairs(one_by_one + 9.0, np.full(len(one_by_one), 9.0), np.ones(len(one_by_one), dtype=np.int64))
        passed += ratio(alone, 1.05, resamples=100, seed=number).p_value <= 0.05
    assert passed / models > 0.2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_sum_proves_nothing(value: float, side: int) -> None:
    pairs = blocks(3)
    (pairs.nll_nats_N, pairs.reference_nats_N)[side][7] = value
    assert "not a finite number of nats" in str(perplexity_ratio(pairs, 1.1))


def test_other_blocks_few_blocks_and_empty_ones_prove_nothing() -> None:
    whole = blocks(4)
    mine, theirs, tokens = whole.nll_nats_N, whole.reference_nats_N, whole.tokens_N
    few = MIN_BLOCKS - 1
    for pairs, words in (
        (BlockPairs(mine[1:], theirs, tokens), "other blocks"),
        (BlockPairs(mine[:few], theirs[:few], tokens[:few]), "too few"),
        (BlockPairs(mine[:0], theirs[:0], tokens[:0]), "too few"),
        (BlockPairs(mine, theirs, np.zeros_like(tokens)), "no tokens"),
        (BlockPairs(mine, theirs, tokens.astype(float)), "no tokens"),
    ):
        assert words in str(perplexity_ratio(pairs, 1.1))
    for bound in (math.nan, math.inf, 0.0, -1.0):
        assert "is no ratio" in str(perplexity_ratio(whole, bound))


def test_a_perplexity_beyond_floating_point_is_the_largest_number_there_is() -> None:
    assert float(exponential(2000.0)) == pytest.approx(np.finfo(np.float64).max)
    pairs = blocks(5)
    assert ratio(BlockPairs(pairs.nll_nats_N * 1e4, pairs.reference_nats_N, pairs.tokens_N), 1.1).p_value == 1.0
