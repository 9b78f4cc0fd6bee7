"""How well a language model predicts held-out blocks, with percentile-bootstrap intervals over blocks, and what is proven.

Letters: N blocks, R resamples. Each metric is a quotient of sums over blocks, so a resample is a vector of block counts;
student and teacher measured on the same blocks with the same seed see the same counts, and their ratio is paired.
Nats are summed and divided by tokens, so every token weighs the same, but what is drawn are blocks: the tokens of one text
are hard or easy together, and drawing them one by one would claim to know more than it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.paired import ROUNDING
from tasks.evaluation.quality import Floats, interval, resample_counts

GRAM: Final = 4
LARGEST_NATS: Final = math.log(np.finfo(np.float64).max)
MIN_BLOCKS: Final = 30  # fewer say little of how blocks vary, and the bootstrap would be too sure
CHUNK: Final = 2_000_000  # blocks drawn at once, so that memory does not grow with resamples


@dataclass(frozen=True)
class BlockPairs:
    """What two models say of the same blocks: sums of negative log-likelihoods in nats, and the tokens they are of."""

    nll_nats_N: Floats
    reference_nats_N: Floats
    tokens_N: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Return how many blocks there are."""
        return len(self.tokens_N)


@dataclass(frozen=True)
class Ratio:
    """A ratio of perplexities with one-sided interval ends, and the p-values of `above max_ratio` and `below max_ratio`."""

    value: float
    low: float
    high: float
    p_value: float  # small: shown to be below max_ratio
    p_broken: float  # small: shown to be above it


def exponential(nats: Floats | float) -> Floats:
    """Return e to the power of these nats, the largest number there is where that is beyond it."""
    found: Floats = np.exp(np.minimum(nats, LARGEST_NATS))
    return found


def nll_per_token(nll_nats_N: Floats, tokens_N: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of a token, nats."""
    return float(nll_nats_N.sum() / tokens_N.sum())


def measure_blocks(
    nll_nats_N: Floats,
    tokens_N: NDArray[np.int64],
    agreed_N: NDArray[np.int64],
    teacher_nll_nats_N: Floats,
    bytes_N: NDArray[np.int64],
    pieces_N: NDArray[np.int64],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Return support (blocks) and the intervals of the metrics of a set.

    `nll_nats_per_token`, per token of the teacher's, whatever those of the model are; `nll_nats_per_byte`, per UTF-8 byte of the
    same text; `perplexity`, the exponential of the first; `perplexity_ratio`, to the teacher's on the same blocks; and
    `agreement`, the share of the model's own `pieces_N` for which student and teacher hold the same most likely.
    """
    columns = np.stack([tokens_N, nll_nats_N, teacher_nll_nats_N, agreed_N, bytes_N, pieces_N], axis=1)
    columns = columns.astype(np.float64)
    drawn = [counts_RN @ columns for counts_RN in resample_counts(len(columns), resamples, seed)]
    values, samples = _metrics(columns.sum(axis=0, keepdims=True)), _metrics(np.concatenate(drawn))
    return {
        "support": len(columns),
        **{name: interval(float(values[name][0]), samples[name], confidence) for name in values},
    }


def _metrics(sums_RK: Floats) -> dict[str, Floats]:
    tokens, nll, teacher_nll, agreed, bytes_, pieces = sums_RK.T
    return {
        "nll_nats_per_token": nll / tokens,
        "nll_nats_per_byte": nll / bytes_,
        "perplexity": exponential(nll / tokens),
        "perplexity_ratio": exponential((nll - teacher_nll) / tokens),
        "agreement": agreed / pieces,
    }


def repetition_rate(tokens: Sequence[int]) -> float:
    """Return the share of 4-grams of a text that it has said before: 0 when none is, near 1 for one word over and over.

    Source: Welleck et al., arXiv:1908.04319, section 6 (seq-rep-4).
    """
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1.0 - len(set(grams)) / len(grams)


def perplexity_ratio(
    pairs: BlockPairs, max_ratio: float, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Ratio | str:
    """Return perplexity / reference perplexity by paired bootstrap over blocks, or the sentence why nothing is proven.

    Both models are summed over the same drawn blocks, so what makes a block hard cancels. Ends and p-values as in
    `tasks.evaluation.paired`: (1 + resamples at or beyond max_ratio) / (1 + resamples), and the order statistics that agree.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.
    """
    trouble = _trouble(pairs, max_ratio)
    if trouble is not None:
        return trouble
    difference_N = pairs.nll_nats_N - pairs.reference_nats_N
    logs_R = _resampled(difference_N, pairs.tokens_N.astype(np.float64), resamples, seed)
    bound = math.log(max_ratio)
    kept = (1 + resamples - int(np.searchsorted(logs_R, bound - ROUNDING, side="left"))) / (1 + resamples)
    broken = (1 + int(np.searchsorted(logs_R, bound + ROUNDING, side="right"))) / (1 + resamples)
    place = max(0, math.floor((1.0 - confidence) * (resamples + 1) + 1e-9) - 1)
    ends = (difference_N.sum() / pairs.tokens_N.sum(), logs_R[place], logs_R[resamples - 1 - place])
    value, low, high = (float(exponential(end)) for end in ends)
    return Ratio(value, low, high, kept, broken)


def _resampled(difference_N: Floats, tokens_N: Floats, resamples: int, seed: int) -> Floats:
    """Return the sorted differences in nats per token of drawn blocks, shape (R,)."""
    rng, blocks = np.random.default_rng(seed), len(tokens_N)
    rows = max(1, CHUNK // blocks)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, blocks, (min(rows, resamples - start), blocks))
        parts.append(difference_N[drawn].sum(axis=1) / tokens_N[drawn].sum(axis=1))
    return np.sort(np.concatenate(parts))


def _trouble(pairs: BlockPairs, max_ratio: float) -> str | None:
    mine, theirs, tokens = pairs.nll_nats_N, pairs.reference_nats_N, pairs.tokens_N
    if not mine.shape == theirs.shape == tokens.shape or tokens.ndim != 1:
        return f"the models were measured on other blocks: {mine.shape}, {theirs.shape}, {tokens.shape}"
    if len(tokens) < MIN_BLOCKS:
        return f"{len(tokens)} blocks are too few; at least {MIN_BLOCKS} are needed for an interval"
    if not np.issubdtype(tokens.dtype, np.integer) or (tokens < 1).any():
        return "a block has no tokens"
    if not all(np.isfinite(one).all() and (one >= 0.0).all() for one in (mine, theirs)):
        return "a sum of negative log-likelihoods is not a finite number of nats"
    if not (math.isfinite(max_ratio) and max_ratio > 0.0):
        return f"{max_ratio} is no ratio of perplexities"
    return None
