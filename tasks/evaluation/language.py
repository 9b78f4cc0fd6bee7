"""How well a language model tells text, beside another on the same text: perplexity, and how often it repeats itself.

Works on what an evaluation would store of each window of tokens (or document, where windows of one are not independent):
the sum of negative log-likelihoods in nats, and the number of tokens predicted. W windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.evaluation.paired import ROUNDING

Floats = NDArray[np.float64]
MIN_WINDOWS: Final = 30  # fewer say little of how windows vary, and the bootstrap would be too sure
CHUNK: Final = 2_000_000  # windows drawn at once, so that memory does not grow with resamples


@dataclass(frozen=True)
class Ratio:
    """A ratio of perplexities with one-sided interval ends, and the p-values of `above max_ratio` and `below max_ratio`."""

    value: float
    low: float
    high: float
    windows: int
    tokens: int
    p_value: float  # small: shown to be below max_ratio
    p_broken: float  # small: shown to be above it


def perplexity(nll_W: Floats, tokens_W: NDArray[np.int64]) -> float:
    """Return exp(nats per token) over all windows; infinity where that is beyond floating point."""
    return float(np.exp(min(nll_W.sum() / tokens_W.sum(), math.log(np.finfo(np.float64).max))))


def perplexity_ratio(
    nll_W: Floats, reference_W: Floats, tokens_W: NDArray[np.int64], max_ratio: float, confidence: float = 0.95,
    resamples: int = 10_000, seed: int = 0,
) -> Ratio | str:  # fmt: skip
    """Return perplexity / reference perplexity by paired bootstrap over windows, or the sentence why nothing is proven.

    Both models are summed over the same drawn windows, so what makes a window hard cancels. Ends and p-values as in
    `tasks.evaluation.paired`: (1 + resamples at or beyond max_ratio) / (1 + resamples), and the order statistics that agree.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.
    """
    trouble = _trouble(nll_W, reference_W, tokens_W, max_ratio)
    if trouble is not None:
        return trouble
    logs = _resampled(nll_W - reference_W, tokens_W.astype(np.float64), resamples, seed)
    bound = math.log(max_ratio)
    kept = (1 + resamples - int(np.searchsorted(logs, bound - ROUNDING, side="left"))) / (1 + resamples)
    broken = (1 + int(np.searchsorted(logs, bound + ROUNDING, side="right"))) / (1 + resamples)
    place = max(0, math.floor((1.0 - confidence) * (resamples + 1) + 1e-9) - 1)
    value = float((nll_W - reference_W).sum() / tokens_W.sum())
    return Ratio(
        value=math.exp(value), low=math.exp(logs[place]), high=math.exp(logs[resamples - 1 - place]),
        windows=len(tokens_W), tokens=int(tokens_W.sum()), p_value=kept, p_broken=broken,
    )  # fmt: skip


def repetition_rate(samples: Sequence[Sequence[int]], n: int = 4) -> float | None:
    """Return the share of n-grams that stood earlier in the same sample, a mean over samples of token ids, 0 to 1.

    Samples shorter than n tokens have no n-gram and do not count; None if no sample does.
    Source: seq-rep-n of Welleck et al., arXiv:1908.04319, section 5.
    """
    shares = []
    for tokens in samples:
        grams = [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
        if grams:
            shares.append(1.0 - len(set(grams)) / len(grams))
    return sum(shares) / len(shares) if shares else None


def _resampled(difference_W: Floats, tokens_W: Floats, resamples: int, seed: int) -> Floats:
    """Return the sorted differences in nats per token of drawn windows."""
    rng, windows = np.random.default_rng(seed), len(tokens_W)
    rows = max(1, CHUNK // windows)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, windows, (min(rows, resamples - start), windows))
        parts.append(difference_W[drawn].sum(axis=1) / tokens_W[drawn].sum(axis=1))
    return np.sort(np.concatenate(parts))


def _trouble(nll_W: Floats, reference_W: Floats, tokens_W: NDArray[np.int64], max_ratio: float) -> str | None:
    if not nll_W.shape == reference_W.shape == tokens_W.shape or tokens_W.ndim != 1:
        return f"the models were measured on other windows: {nll_W.shape}, {reference_W.shape}, {tokens_W.shape}"
    if len(tokens_W) < MIN_WINDOWS:
        return f"{len(tokens_W)} windows are too few; at least {MIN_WINDOWS} are needed"
    if not np.issubdtype(tokens_W.dtype, np.integer) or (tokens_W < 1).any():
        return "a window has no tokens"
    if not all(np.isfinite(one).all() and (one >= 0.0).all() for one in (nll_W, reference_W)):
        return "a sum of negative log-likelihoods is not a finite number of nats"
    if not (math.isfinite(max_ratio) and max_ratio > 0.0):
        return f"{max_ratio} is no ratio of perplexities"
    return None
