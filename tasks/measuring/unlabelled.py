"""How far a student is from its teacher on rows without labels, from the logits of both.

Letters: N rows, C classes, R resamples. Of two classes all that matters is d = logit(1) - logit(0); of more, of each class its
logit above the mean of the others', which of two classes is d and -d. Prior and response gap take the class of which the gap is
largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.artifacts import AS_WRITTEN, Interval, original_of
from tasks.measuring.quality import DIGITS, Bools, Draws, Floats, Ints, interval, log_softmax, resample_counts
from tasks.measuring.shares import share_interval

CONFIDENT: Final = 2.0  # logits between the teacher's best class and its second: a probability of 0.88 of two classes
SHARES: Final = ("agreement", "confident_disagreement", "flips")
MEANS: Final = ("kl_nats_per_example", "expected_drop", "probability_loyalty")
GAPS: Final = ("prior_gap", "response_gap")
OF_CHANGES: Final = ("flips", "response_gap")  # of a row and its changed copy together
COLDEST, HOTTEST, HALVINGS = 0.02, 50.0, 60  # of the search for the teacher's temperature

Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Unlike:
    """What each row says of a student and its teacher: hits (N,) of shares, values (N,) of means, and (N, C) of gaps.

    Of rows that are not changed copies, what `OF_CHANGES` is about is missing from `changed`.
    """

    shares: Mapping[str, Bools]
    means: Mapping[str, Floats]
    gaps: Mapping[str, Floats]
    changed: Bools

    def of(self, mask: Bools) -> Unlike:
        """Return the same of some rows; what is about changes only where all of them are changed copies."""
        kept = self.changed[mask]
        dropped = () if len(kept) and kept.all() else OF_CHANGES
        shares = {name: hits[mask] for name, hits in self.shares.items() if name not in dropped}
        gaps = {name: values[mask] for name, values in self.gaps.items() if name not in dropped}
        return Unlike(shares, {name: values[mask] for name, values in self.means.items()}, gaps, kept)

    def values(self) -> dict[str, float]:
        """Return metric -> its value over all rows; there is at least one."""
        found = {name: float(values.mean()) for group in (self.shares, self.means) for name, values in group.items()}
        return found | {name: abs(self.widest(name)[1]) for name in self.gaps}

    def widest(self, name: str) -> tuple[Floats, float]:
        """Return of a gap the values (N,) of the class with the largest mean, turned so that the mean is not negative, and it."""
        means_C = self.gaps[name].mean(axis=0)
        place = int(np.abs(means_C).argmax())
        sign = -1.0 if means_C[place] < 0 else 1.0
        return sign * self.gaps[name][:, place], float(sign * means_C[place])


def unlike(student_NC: Logits, teacher_NC: Logits, temperature: float, rows: Sequence[str] = ()) -> Unlike:
    """Return what each row says; `temperature` calibrates the teacher, `rows` are the row ids of a set of changed copies.

    agreement: both choose the same class. confident_disagreement: they do not, and the teacher's best class is `CONFIDENT` logits
    above its second. kl_nats_per_example: KL(teacher || student). expected_drop: q[teacher's choice] - q[student's choice], q the
    calibrated teacher: the accuracy that is lost if the teacher is as often right as it says. probability_loyalty: 1 - the root
    of the Jensen-Shannon divergence in bits (Xu et al., arXiv:2109.03228). prior_gap: teacher's less student's probability of a
    class. response_gap: by how much more the student's logits move than the teacher's when the row is changed. flips: the
    student's choice changes with the row, and the teacher's does not.
    """
    student_NC, teacher_NC = (np.asarray(logits, dtype=np.float64) for logits in (student_NC, teacher_NC))
    log_s_NC, log_t_NC = log_softmax(student_NC), log_softmax(teacher_NC)
    p_s_NC, p_t_NC, q_NC = np.exp(log_s_NC), np.exp(log_t_NC), np.exp(log_softmax(teacher_NC / temperature))
    own, other, place = student_NC.argmax(axis=1), teacher_NC.argmax(axis=1), np.arange(len(student_NC))
    best = np.sort(teacher_NC, axis=1)
    middle_NC = np.logaddexp(log_s_NC, log_t_NC) - np.log(2.0)
    divergence_N = 0.5 * (p_s_NC * (log_s_NC - middle_NC) + p_t_NC * (log_t_NC - middle_NC)).sum(axis=1) / np.log(2.0)
    shares: dict[str, Bools] = {
        "agreement": own == other,
        "confident_disagreement": (own != other) & (best[:, -1] - best[:, -2] > CONFIDENT),
    }
    means = {
        "kl_nats_per_example": (p_t_NC * (log_t_NC - log_s_NC)).sum(axis=1),
        "expected_drop": q_NC[place, other] - q_NC[place, own],
        "probability_loyalty": 1.0 - np.sqrt(np.clip(divergence_N, 0.0, 1.0)),
    }
    gaps, changed = {"prior_gap": p_t_NC - p_s_NC}, np.zeros(len(own), dtype=np.bool_)
    if len(rows):
        from_N, changed = _originals(rows)
        gaps["response_gap"] = _moves(student_NC, from_N) - _moves(teacher_NC, from_N)
        shares["flips"] = (own != own[from_N]) & (other == other[from_N])
    return Unlike(shares, means, gaps, changed)


def _originals(rows: Sequence[str]) -> tuple[Ints, Bools]:
    """Return for each row the place of the row of which it is a copy, and whether it is one; KeyError where that is missing."""
    places = {row: place for place, row in enumerate(rows)}
    return np.array([places[original_of(row)] for row in rows]), np.array([":" in row for row in rows], dtype=np.bool_)


def _moves(logits_NC: Floats, from_N: Ints) -> Floats:
    """Return by how much each class rises above the mean of the others from the original to the copy, shape (N, C)."""
    moved_NC = logits_NC - logits_NC[from_N]
    classes = moved_NC.shape[1]
    above_NC: Floats = (moved_NC - moved_NC.mean(axis=1, keepdims=True)) * (classes / (classes - 1))
    return above_NC


def measure_unlike(rows: Unlike, slices: Mapping[str, Bools], draws: Draws) -> dict[str, dict[str, int | Interval]]:
    """Return slice -> support and the interval of each metric; a slice without rows has support 0 and no metric.

    Shares have exact bounds, the rest those of resampled rows; of a gap the class and the direction are those that were found.
    """
    parts = {name: rows.of(mask) for name, mask in slices.items() if mask.any()}
    columns = {name: _columns(part) for name, part in parts.items()}
    samples: dict[str, list[Floats]] = {name: [] for name in parts}
    for counts_RN in resample_counts(len(rows.changed), draws.resamples, draws.seed):
        for name in parts:
            chosen_RN = counts_RN[:, slices[name]]
            drawn_R = chosen_RN.sum(axis=1, keepdims=True)
            samples[name].append(chosen_RN @ columns[name][1] / np.where(drawn_R > 0, drawn_R, np.nan))
    measured: dict[str, dict[str, int | Interval]] = {name: {"support": 0} for name in slices}
    for name, part in parts.items():
        drawn = np.concatenate(samples[name])
        measured[name]["support"] = len(part.changed)
        for metric, value in part.values().items():
            if metric in part.shares:
                measured[name][metric] = exact(part.shares[metric], draws.confidence)
                continue
            found = interval(value, drawn[:, columns[name][0].index(metric)], draws.confidence)
            measured[name][metric] = {**found, "low": max(found["low"], 0.0)} if metric in GAPS else found
    return measured


def exact(hits: Bools, confidence: float) -> Interval:
    """Return the share of hits with its exact interval: each end is wrong with half of what the confidence leaves."""
    low, high = share_interval(int(hits.sum()), len(hits), (1.0 + confidence) / 2.0)
    return {"value": round(float(hits.mean()), DIGITS), "low": round(low, DIGITS), "high": round(high, DIGITS)}


def _columns(part: Unlike) -> tuple[list[str], Floats]:
    names = [*part.means, *part.gaps]
    return names, np.stack([*part.means.values(), *(part.widest(name)[0] for name in part.gaps)], axis=1)


def calibrating_temperature(logits_NC: Logits, labels: Ints) -> float:
    """Return the temperature at which the labels are most likely, between `COLDEST` and `HOTTEST`.

    The likelihood is concave in 1 / temperature, so the place where its slope is zero is found by halving. Source: Guo et al.,
    arXiv:1706.04599, section 4.2.
    """
    logits_NC = np.asarray(logits_NC, dtype=np.float64)
    truth_N = logits_NC[np.arange(len(labels)), labels]

    def rises(cold: float) -> bool:
        expected_N = (np.exp(log_softmax(logits_NC * cold)) * logits_NC).sum(axis=1)
        return float((truth_N - expected_N).sum()) > 0.0

    low, high = 1.0 / HOTTEST, 1.0 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if rises(middle) else (low, middle)
    return 1.0 / low


def slices_of_changes(sources: Sequence[str]) -> list[list[str]]:
    """Return for each row of a set of changed copies the name of its one slice, `as_written` of a row that is no copy."""
    return [[AS_WRITTEN if source == AS_WRITTEN else f"change:{source}"] for source in sources]
