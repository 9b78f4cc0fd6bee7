"""What the rows of two cells prove about their difference. A cell holds its right rows as a string of 0 and 1, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tasks.gates.paired import count_pairs, paired_bootstrap
from tasks.measuring.quality import Draws, interval_of_mean

ONE_SIDED: Final = 0.975  # of each end: an interval of 95 %
TWO_SIDED: Final = 0.95
RESAMPLES: Final = 10_000


@dataclass(frozen=True)
class Difference:
    """A difference, mine minus the reference's, with its 95 % interval; `higher_is_better` says which way is good."""

    value: float
    low: float
    high: float
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """Return better, worse, or tie where the interval holds zero."""
        above, below = ("better", "worse") if self.higher_is_better else ("worse", "better")
        return above if self.low > 0 else below if self.high < 0 else "tie"


def accuracy_of(right: str) -> float:
    """Return the share of ones."""
    return right.count("1") / len(right)


def accuracy_difference(right: str, reference: str, seed: int) -> Difference:
    """Return the difference of accuracies on the same rows, by paired bootstrap."""
    mine, theirs = _bits(right), _bits(reference)
    found = paired_bootstrap(count_pairs(np.ones_like(mine), mine, theirs), 0.0, ONE_SIDED, RESAMPLES, seed)
    return Difference(found.value, found.low, found.high)


def kl_difference(kl_nats: list[float], reference: list[float], seed: int) -> Difference:
    """Return the difference of the mean KL to the teacher on the same rows, nats; lower is better."""
    found = interval_of_mean(np.array(kl_nats) - np.array(reference), Draws(RESAMPLES, TWO_SIDED, seed))
    return Difference(found["value"], found["low"], found["high"], higher_is_better=False)


def compared(facts: Mapping[str, Any], reference: Mapping[str, Any], seed: int) -> dict[str, Difference]:
    """Return `kl` and each set's name -> the difference of a cell from its reference."""
    found = {"kl": kl_difference(facts["validation_kl_nats"], reference["validation_kl_nats"], seed)}
    for name, right in facts["right"].items():
        found[name] = accuracy_difference(right, reference["right"][name], seed)
    return found


def _bits(right: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(right.encode(), dtype=np.uint8) - ord("0")
