"""Exact bounds of a share of rows: Clopper and Pearson, Biometrika 26, 1934."""

from __future__ import annotations

from scipy.special import bdtr, bdtrc, betaincinv


def least(count: int, rows: int, confidence: float) -> float:
    """Return the exact lower bound of a share, with one-sided `confidence`."""
    return float(betaincinv(count, rows - count + 1, 1.0 - confidence)) if count else 0.0


def most(count: int, rows: int, confidence: float) -> float:
    """Return the exact upper bound of a share, with one-sided `confidence`."""
    return float(betaincinv(count + 1, rows - count, confidence)) if count < rows else 1.0


def share_interval(count: int, rows: int, confidence: float) -> tuple[float, float]:
    """Return the exact lower and upper bound of a share, each with one-sided `confidence`."""
    return least(count, rows, confidence), most(count, rows, confidence)


def chance_of_more(count: int, rows: int, share: float) -> float:
    """Return the probability of at least `count` of `rows` where each has this chance."""
    return float(bdtrc(count - 1, rows, share)) if count else 1.0


def chance_of_fewer(count: int, rows: int, share: float) -> float:
    """Return the probability of at most `count` of `rows` where each has this chance."""
    return float(bdtr(count, rows, share))
