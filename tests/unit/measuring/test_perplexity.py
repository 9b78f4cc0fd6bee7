"""Perplexity from sums over blocks, and how much a text repeats itself."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tasks.measuring.perplexity import measure_blocks, repetition_rate
from tasks.measuring.quality import Draws

NLL = np.array([20.0, 44.0, 12.0])
TOKENS = np.array([10, 20, 5])
DRAWS = Draws(500, 0.95, 0)


def stored(nll_nats: NDArray[np.float64], pieces: NDArray[np.int64], same: NDArray[np.int64]) -> pd.DataFrame:
    """Return stored blocks of so many pieces, of which so many are chosen as by a teacher that chooses ones."""
    choices = [np.where(np.arange(count) < ones, 1, 0) for count, ones in zip(pieces, same, strict=True)]
    return pd.DataFrame({"tokens": TOKENS, "bytes": TOKENS * 4, "nll_nats": nll_nats, "choices": choices})


def test_perplexity_is_the_exponential_of_nats_over_all_tokens() -> None:
    found = measure_blocks(stored(NLL, TOKENS + 5, np.array([5, 5, 5])), stored(NLL / 2, TOKENS + 5, TOKENS + 5), DRAWS)
    assert found["support"] == 3
    assert found["nll_nats_per_token"]["value"] == pytest.approx(76 / 35, abs=1e-6)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(76 / 35), rel=1e-6)
    assert found["perplexity_ratio"]["value"] == pytest.approx(math.exp(38 / 35), rel=1e-6)
    assert found["agreement"]["value"] == pytest.approx(15 / 50, abs=1e-6), "of the student's own pieces"
    assert found["nll_nats_per_byte"]["value"] == pytest.approx(76 / 140, abs=1e-6)
    # a resample of blocks has at best only the easiest and at worst only the hardest one
    assert math.exp(2.0) <= found["perplexity"]["low"] <= found["perplexity"]["high"] <= math.exp(2.4)


def test_the_ratio_to_the_teacher_is_paired() -> None:
    """However blocks differ in difficulty, a student that is worse by the same factor everywhere has a certain ratio."""
    found = measure_blocks(stored(NLL + 0.1 * TOKENS, TOKENS, TOKENS), stored(NLL, TOKENS, TOKENS), DRAWS)
    ratio = found["perplexity_ratio"]
    assert ratio["low"] == ratio["value"] == ratio["high"] == pytest.approx(math.exp(0.1), abs=1e-6)
    assert found["perplexity"]["low"] < found["perplexity"]["high"]


@pytest.mark.parametrize(
    ("tokens", "rate"), [([1, 2, 3, 4], 0.0), ([7] * 13, 0.9), ([1, 2, 3, 4, 1, 2, 3, 4], 0.2), (list(range(30)), 0.0)]
)
def test_repetition_counts_grams_said_before(tokens: list[int], rate: float) -> None:
    assert repetition_rate(tokens) == pytest.approx(rate)
