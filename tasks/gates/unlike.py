"""What rows without labels prove of a student and its teacher: exact bounds of shares, and resampled rows for means.

Confidence is one-sided throughout, as in `tasks.gates.paired`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from tasks.gates.paired import Estimate
from tasks.measuring.quality import Floats, resample_counts
from tasks.measuring.shares import chance_of_fewer, chance_of_more, share_interval

ROUNDING: Final = 1e-12
FEWEST: Final = 30  # rows of which a resampled mean says something


@dataclass(frozen=True)
class Hits:
    """Of how many rows a metric that is a share holds."""

    rows: int
    hits: int

    @property
    def possible(self) -> bool:
        """Return whether these can be counts of rows at all."""
        return 0 <= self.hits <= self.rows


@dataclass(frozen=True)
class Values:
    """Numbers (N, K) of each row. The metric is the mean of the only column, or with `widest` the largest mean, unsigned."""

    values_NK: Floats
    widest: bool

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return len(self.values_NK)


def of_share(hits: Hits, bound: float, at_least: bool, confidence: float) -> Estimate:
    """Return a share with its exact ends, and what is shown of a bound: at least so much, or at most."""
    low, high = share_interval(hits.hits, hits.rows, confidence)
    more = chance_of_more(hits.hits, hits.rows, _inside(bound))
    fewer = chance_of_fewer(hits.hits, hits.rows, _inside(bound))
    kept, broken = (more, fewer) if at_least else (fewer, more)
    return Estimate(hits.hits / hits.rows, low, high, kept, broken)


def of_mean(values: Values, most: float, confidence: float, resamples: int, seed: int) -> Estimate | str:
    """Return a mean, or the largest of several without its sign, by percentile bootstrap over rows; or why it proves nothing.

    `p_value` shows that it is at most `most`: every column has to be shown to be below it, and with `widest` above its negative,
    so the largest p-value counts (intersection of the statements). `p_broken` shows that one is not; it is multiplied by their
    number. Source of the bootstrap: Efron and Tibshirani, 1993, chapters 13 and 15.
    """
    if values.rows < FEWEST:
        return f"{values.rows} rows are too few; at least {FEWEST} are needed for an interval"
    if not np.isfinite(values.values_NK).all():
        return "a row has a number that is not finite. Evaluate again"
    means_RK = _resampled(values.values_NK, resamples, seed)
    statements = [means_RK, -means_RK] if values.widest else [means_RK]
    kept = [(1 + (sides_RK >= most - ROUNDING).sum(axis=0)) / (1 + resamples) for sides_RK in statements]
    broken = [(1 + (sides_RK <= most + ROUNDING).sum(axis=0)) / (1 + resamples) for sides_RK in statements]
    place = max(0, math.floor((1.0 - confidence) * (resamples + 1) + 1e-9) - 1)
    ordered = [np.sort(sides_RK, axis=0) for sides_RK in statements]
    value, columns = values.values_NK.mean(axis=0), values.values_NK.shape[1]
    found = float(np.abs(value).max()) if values.widest else float(value[0])
    low, high = (max(float(sides_RK[at].max()) for sides_RK in ordered) for at in (place, resamples - 1 - place))
    tried = columns * len(statements) // (2 if values.widest and columns == 2 else 1)  # two classes say one thing twice
    shown_broken = min(1.0, tried * min(float(each.min()) for each in broken))
    return Estimate(found, max(low, 0.0) if values.widest else low, high, max(float(each.max()) for each in kept), shown_broken)


def _resampled(values_NK: Floats, resamples: int, seed: int) -> Floats:
    """Return the means of drawn rows, shape (R, K)."""
    rows = len(values_NK)
    return np.concatenate([counts_RN @ values_NK / rows for counts_RN in resample_counts(rows, resamples, seed)])


def _inside(share: float) -> float:
    return min(1.0, max(0.0, share))
