"""What two models' predictions on the same rows or blocks prove about the difference of their accuracies, or the ratio of
their perplexities.

A row counts as `lost` (the reference is right, the model wrong), `gained` (the other way round) or neither. The difference
of accuracies is (gained - lost) / rows, so a resample of rows is one draw of two counts: nothing needs to be indexed.
Confidence is one-sided throughout: each end of an interval is exceeded with probability 1 - confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from tasks.measuring.perplexity import exponential
from tasks.measuring.quality import Floats
from tasks.measuring.shares import least, most

ROUNDING: Final = 1e-12  # 0.83 - 0.80 is a little less than 0.03 in floating point


@dataclass(frozen=True)
class Pairs:
    """Counts over the rows of one slice: all, lost, gained, and flipped (another class is predicted, right or wrong).

    Of rows that share texts `groups` has, for each kind of group there is, how many there are and the rows, lost and gained rows
    in each; whole groups are drawn then. Without it each row is drawn by itself.
    """

    rows: int
    lost: int
    gained: int
    flipped: int
    groups: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def units(self) -> int:
        """Return how many things are drawn: groups where there are some, else rows."""
        return sum(count for count, *_ in self.groups) if self.groups else self.rows

    @property
    def possible(self) -> bool:
        """Return whether these can be counts of rows at all."""
        parts = (self.lost, self.gained, self.flipped)
        return all(0 <= part <= self.rows for part in parts) and self.lost + self.gained <= self.flipped

    @property
    def difference(self) -> float:
        """Return the model's accuracy minus the reference's."""
        return (self.gained - self.lost) / self.rows


@dataclass(frozen=True)
class Estimate:
    """A difference of accuracies or a ratio of perplexities, with one-sided ends and what is shown of the bound that is asked."""

    value: float
    low: float
    high: float
    p_value: float  # small: the bound is shown to be kept (above -margin, below the largest ratio)
    p_broken: float  # small: it is shown to be broken


def count_pairs(
    labels: NDArray[np.generic],
    predictions: NDArray[np.generic],
    reference: NDArray[np.generic],
    groups: NDArray[np.generic] | None = None,
) -> Pairs:
    """Return the counts of three arrays of classes of shape (N,), in the same order of rows; `groups` names that of each row."""
    right, reference_right = predictions == labels, reference == labels
    lost, gained = reference_right & ~right, right & ~reference_right
    flipped = int((predictions != reference).sum())
    return Pairs(len(labels), int(lost.sum()), int(gained.sum()), flipped, () if groups is None else _kinds(groups, lost, gained))


def _kinds(
    groups: NDArray[np.generic], lost: NDArray[np.bool_], gained: NDArray[np.bool_]
) -> tuple[tuple[int, int, int, int], ...]:
    _, place_N = np.unique(groups.astype(str), return_inverse=True)
    counts = [np.bincount(place_N, weights=weights).astype(np.int64) for weights in (np.ones(len(lost)), lost, gained)]
    kinds, times = np.unique(np.stack(counts, axis=1), axis=0, return_counts=True)
    return tuple((int(count), int(kind[0]), int(kind[1]), int(kind[2])) for count, kind in zip(times, kinds, strict=True))


def paired_bootstrap(pairs: Pairs, margin: float, confidence: float, resamples: int, seed: int) -> Estimate:
    """Return the difference by percentile bootstrap over rows, or groups; `margin` is the allowed drop, of a gain minus it.

    Drawing N rows with replacement and counting the lost and gained among them is one multinomial draw; so is drawing groups, of
    which the difference is a ratio of sums. The p-value is (1 + resamples at or beyond the margin) / (1 + resamples), and `low`
    is the order statistic that agrees with it.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15.
    """
    rng = np.random.default_rng(seed)
    if pairs.groups:
        count, rows, lost, gained = np.array(pairs.groups, dtype=np.float64).T
        drawn = rng.multinomial(pairs.units, count / pairs.units, size=resamples)
        samples = np.sort(drawn @ (gained - lost) / (drawn @ rows))
    else:
        shares = np.array([pairs.lost, pairs.gained, pairs.rows - pairs.lost - pairs.gained]) / pairs.rows
        drawn = rng.multinomial(pairs.rows, shares, size=resamples)
        samples = np.sort((drawn[:, 1] - drawn[:, 0]) / pairs.rows)
    kept = (1 + int(np.searchsorted(samples, -margin + ROUNDING, side="right"))) / (1 + resamples)
    broken = (1 + resamples - int(np.searchsorted(samples, -margin - ROUNDING, side="left"))) / (1 + resamples)
    place = max(0, math.floor((1.0 - confidence) * (resamples + 1)) - 1)
    low, high = float(samples[place]), float(samples[resamples - 1 - place])
    return _guarded(pairs, margin, confidence, low, high, kept, broken)


def exact_mcnemar(pairs: Pairs, margin: float, confidence: float, _resamples: int = 0, _seed: int = 0) -> Estimate:
    """Return the difference by McNemar's exact test: given how many rows differ, the gained ones are binomial.

    A drop of `margin` means that a share (1 - margin * N / differing) / 2 of the differing rows is gained; with margin 0
    this is the textbook test of 1/2. The interval is Clopper and Pearson's for the share gained, as a difference.
    Source: McNemar, Psychometrika 12, 1947; Clopper and Pearson, Biometrika 26, 1934.
    """
    differing = pairs.lost + pairs.gained
    if differing == 0:
        return _guarded(pairs, margin, confidence, 0.0, 0.0, 0.0, 0.0)
    scale = differing / pairs.rows
    low = scale * (2.0 * least(pairs.gained, differing, confidence) - 1.0)
    high = scale * (2.0 * most(pairs.gained, differing, confidence) - 1.0)
    gained_share = min(1.0, max(0.0, (1.0 - margin / scale) / 2.0))
    # P(at least as many gained) and P(at most as many gained) at the margin
    kept = 1.0 - float(bdtr(pairs.gained - 1, differing, gained_share)) if pairs.gained else 1.0
    if margin >= scale:
        kept = 0.0  # not even all differing rows make such a drop; whether more rows would differ is for the guard
    return _guarded(pairs, margin, confidence, low, high, kept, float(bdtr(pairs.gained, differing, gained_share)))


def _guarded(pairs: Pairs, margin: float, confidence: float, low: float, high: float, kept: float, broken: float) -> Estimate:
    """Return the difference with ends and p-values at least as cautious as the exact bound of the lost rows alone.

    Both tests take the number of differing rows as it was seen. Where a handful differ that is too sure (without one lost
    row no resample loses any); there, and only there, the exact binomial bound with the gained rows held fixed is wider. Of
    groups it is that of the groups with a lost row, as if each had lost as many rows as the largest group has.
    """
    lost, gained = pairs.lost / pairs.rows, pairs.gained / pairs.rows
    losing, gaining, widest = pairs.lost, pairs.gained, 1.0
    if pairs.groups:
        losing, gaining = (sum(kind[0] for kind in pairs.groups if kind[place]) for place in (2, 3))
        widest = max(kind[1] for kind in pairs.groups) * pairs.units / pairs.rows
    low = min(low, gained - widest * most(losing, pairs.units, confidence))
    high = max(high, widest * most(gaining, pairs.units, confidence) - lost)
    kept = max(kept, float(bdtr(losing, pairs.units, min(1.0, max(0.0, gained + margin) / widest))))
    broken = max(broken, float(bdtr(gaining, pairs.units, min(1.0, max(0.0, lost - margin) / widest))))
    return Estimate(pairs.difference, low, high, kept, broken)


# One function and one entry add a test.
TESTS: Final[dict[str, Callable[[Pairs, float, float, int, int], Estimate]]] = {
    "paired_bootstrap": paired_bootstrap,
    "mcnemar": exact_mcnemar,
}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that those at most alpha are all true with probability 1 - alpha, in the same order.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


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


def perplexity_ratio(
    pairs: BlockPairs, max_ratio: float, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate | str:
    """Return perplexity / reference perplexity by paired bootstrap over blocks, or the sentence why nothing is proven.

    Both models are summed over the same drawn blocks, so what makes a block hard cancels. Ends and p-values as of
    `paired_bootstrap`: (1 + resamples at or beyond max_ratio) / (1 + resamples), and the order statistics that agree.
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
    return Estimate(value, low, high, kept, broken)


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
    nats, reference, tokens = pairs.nll_nats_N, pairs.reference_nats_N, pairs.tokens_N
    if not nats.shape == reference.shape == tokens.shape or tokens.ndim != 1:
        return f"the models were measured on other blocks: {nats.shape}, {reference.shape}, {tokens.shape}"
    if len(tokens) < MIN_BLOCKS:
        return f"{len(tokens)} blocks are too few; at least {MIN_BLOCKS} are needed for an interval"
    if not np.issubdtype(tokens.dtype, np.integer) or (tokens < 1).any():
        return "a block has no tokens"
    if not all(np.isfinite(sums).all() and (sums >= 0.0).all() for sums in (nats, reference)):
        return "a sum of negative log-likelihoods is not a finite number of nats"
    if not (math.isfinite(max_ratio) and max_ratio > 0.0):
        return f"{max_ratio} is no ratio of perplexities"
    return None
