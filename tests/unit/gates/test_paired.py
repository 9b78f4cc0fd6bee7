"""Paired tests against textbook answers, brute force and each other."""

from __future__ import annotations

import tracemalloc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.gates.paired import TESTS, Pairs, count_pairs, exact_mcnemar, holm, paired_bootstrap
from tasks.measuring.shares import share_interval
from tasks.params.gates import Gate
from tests.bench.gates import share_passing


def test_counts_are_those_of_the_rows() -> None:
    labels, mine, theirs = np.array([0, 1, 2, 0, 1]), np.array([0, 1, 0, 1, 2]), np.array([0, 2, 2, 0, 0])
    assert count_pairs(labels, mine, theirs) == Pairs(rows=5, lost=2, gained=1, flipped=4)


def test_margin_zero_is_the_textbook_test() -> None:
    found = exact_mcnemar(Pairs(100, 2, 10, 12), 0.0, 0.95)
    assert found.p_value == pytest.approx(binomtest(10, 12, alternative="greater").pvalue)
    worse = exact_mcnemar(Pairs(100, 10, 2, 12), 0.0, 0.95)
    assert worse.p_broken == pytest.approx(binomtest(2, 12, alternative="less").pvalue)


def test_counts_give_the_interval_that_resampled_rows_give() -> None:
    rng = np.random.default_rng(1)
    change = np.repeat([-1, 1, 0], [70, 50, 780])
    rows = rng.integers(0, len(change), size=(4000, len(change)))
    low, high = np.quantile(change[rows].mean(axis=1), [0.05, 0.95])
    found = paired_bootstrap(Pairs(900, 70, 50, 120), 0.02, 0.95, 10_000, 0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0025)


def test_resamples_are_drawn_as_counts_and_not_row_by_row() -> None:
    """Ten thousand of five thousand rows are 50 million draws; what they cost in time is in docs/benchmarks.md."""
    tracemalloc.start()
    paired_bootstrap(Pairs(5000, 300, 280, 600), 0.02, 0.95, 10_000, 0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000 * 100


def test_the_same_seed_gives_the_same_answer() -> None:
    pairs = Pairs(964, 60, 50, 115)
    assert paired_bootstrap(pairs, 0.04, 0.95, 2000, 3) == paired_bootstrap(pairs, 0.04, 0.95, 2000, 3)


@pytest.mark.parametrize("test", TESTS)
def test_a_few_rows_without_a_loss_prove_nothing(test: str) -> None:
    assert TESTS[test](Pairs(10, 0, 0, 0), 0.02, 0.95, 2000, 0).p_value > 0.5
    assert TESTS[test](Pairs(10_000, 0, 0, 0), 0.02, 0.95, 2000, 0).p_value < 0.01
    assert TESTS[test](Pairs(10_000, 0, 0, 0), 0.0, 0.95, 2000, 0).p_value == 1.0


@pytest.mark.parametrize("test", TESTS)
def test_a_student_three_points_worse_than_allowed_seldom_passes_and_an_equal_one_mostly(test: str) -> None:
    assert share_passing(test, 964, 300, 0.10, 0.07, 0.04, 0.95) <= 0.05
    assert share_passing(test, 964, 300, 0.10, 0.0, 0.04, 0.95) >= 0.90
    assert share_passing(test, 60, 300, 0.05, 0.04, 0.04, 0.95) <= 0.08  # at the margin, hardly any rows


PAIRS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(121, 900)).map(
    lambda drawn: Pairs(drawn[2], drawn[0], drawn[1], drawn[0] + drawn[1])
)


@given(PAIRS, st.floats(0.0, 0.3), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_interval_and_p_value_say_the_same(pairs: Pairs, margin: float, confidence: float) -> None:
    for test in TESTS.values():
        found = test(pairs, margin, confidence, 2000, 0)
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
        assert 0.0 <= found.p_value <= 1.0
        if abs(found.low + margin) > 1e-6 and margin > 0:
            assert (found.p_value <= 1.0 - confidence) == (found.low > -margin)


@given(PAIRS, st.floats(0.0, 0.2), st.floats(0.001, 0.1))
def test_a_wider_margin_is_never_harder(pairs: Pairs, margin: float, more: float) -> None:
    for test in TESTS.values():
        assert test(pairs, margin + more, 0.95, 2000, 0).p_value <= test(pairs, margin, 0.95, 2000, 0).p_value + 1e-12


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_is_between_the_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, one in zip(p_values, adjusted, strict=True):
        assert raw <= one <= min(1.0, len(p_values) * max(p_values)) or one == pytest.approx(raw)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_share_interval_is_clopper_and_pearsons() -> None:
    found = binomtest(7, 50).proportion_ci(0.90, method="exact")
    assert share_interval(7, 50, 0.95) == pytest.approx((found.low, found.high))


def test_params_name_the_tests_there_are() -> None:
    annotation = Gate.model_fields["test"].annotation
    assert set(get_args(get_args(annotation)[0])) == set(TESTS)
