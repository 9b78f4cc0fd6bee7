"""How good predictions are, with percentile-bootstrap intervals over rows.

Letters: N rows, C classes, B bins of confidence, S slices, R resamples, K columns of sums.

Every metric is a function of sums over rows: one resample is a vector of row counts, and all resamples of all metrics
of a slice are one matrix product: counts (R, N) @ columns (N, K). A student and a teacher measured on the same rows
with the same seed see the same counts, so their differences pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.artifacts import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHUNK_COUNTS: Final = 4_000_000  # resample counts held at once: 32 MB, whatever the number of rows
DIGITS: Final = 6  # of a reported number: the last bits of a matrix product differ between processors


@dataclass(frozen=True)
class Draws:
    """How intervals are drawn: so many resamples of the rows from this seed, and the share of them that an interval holds.

    With `groups`, the name of each row's group, whole groups are drawn: rows that share a text do not vary by themselves.
    """

    resamples: int
    confidence: float
    seed: int
    groups: tuple[str, ...] | None = None

    def counts(self, rows: int) -> Iterator[Floats]:
        """Yield chunks (r, N) of how often each of the rows is drawn, `resamples` in all."""
        if self.groups is None:
            yield from resample_counts(rows, self.resamples, self.seed)
            return
        names, place_N = np.unique(np.array(self.groups, dtype=object).astype(str), return_inverse=True)
        chunk = max(1, CHUNK_COUNTS // max(rows, 1))
        for counts_RG in resample_counts(len(names), self.resamples, self.seed):
            for start in range(0, len(counts_RG), chunk):
                yield counts_RG[start : start + chunk, place_N]


def log_softmax(logits_NC: NDArray[np.floating]) -> Floats:
    """Return log-probabilities in nats, shape (N, C), in double precision."""
    shifted_NC = np.asarray(logits_NC, dtype=np.float64)
    shifted_NC = shifted_NC - shifted_NC.max(axis=1, keepdims=True)
    normalised_NC: Floats = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    return normalised_NC


def accuracy(labels: Ints, predictions: Ints) -> float:
    """Return the share of rows whose prediction is their label."""
    return float(np.mean(labels == predictions))


def agreement(predictions: Ints, teacher_predictions: Ints) -> float:
    """Return the share of rows on which student and teacher choose the same class."""
    return accuracy(teacher_predictions, predictions)


def macro_f1(labels: Ints, predictions: Ints, classes: int) -> float:
    """Return the mean F1 of the classes that have rows.

    A class without rows is left out, so that the slice of one class holds the F1 of that class; where every class has
    rows this is scikit-learn's `f1_score(average="macro")`.
    """
    ones = np.ones((1, len(labels)))
    return float(_macro_f1(ones @ _hits(labels, predictions, classes), ones @ _one_hot(labels, classes))[0])


def nll_nats_per_example(logits: NDArray[np.floating], labels: Ints) -> float:
    """Return the mean negative log-likelihood of the labels, in nats a row."""
    return float(np.mean(_nll(log_softmax(logits), labels)))


def kl_nats_per_example(logits: NDArray[np.floating], teacher_logits: NDArray[np.floating]) -> float:
    """Return KL(teacher || student), the mean over rows in nats; >= 0, zero when the two answer alike."""
    student_NC, teacher_NC = log_softmax(logits), log_softmax(teacher_logits)
    return float(np.mean(np.sum(np.exp(teacher_NC) * (teacher_NC - student_NC), axis=1)))


def calibration_error(logits: NDArray[np.floating], labels: Ints, bins: int) -> float:
    """Return the expected calibration error, between 0 and 1, over `bins` equal-width bins of the top probability.

    Source: Guo et al., arXiv:1706.04599, equation 3. The weight of a bin cancels the count in its means, so it is the
    sum over bins of |sum of confidence - number correct|, divided by the rows.
    """
    gaps_NB = _confidence_gaps(log_softmax(logits), labels, bins)
    return float(np.abs(gaps_NB.sum(axis=0)).sum() / len(labels))


def moved_by_order(logits: NDArray[np.floating], swapped: NDArray[np.floating]) -> Floats:
    """Return how far probabilities move when the two texts of a pair change places, (N,), 0 to 1.

    It is half the sum over classes of |p - p swapped|, with two classes that of either one. `swapped` are probabilities (N, C).
    """
    moved: Floats = np.abs(np.exp(log_softmax(logits)) - swapped).sum(axis=1) / 2.0
    return moved


def resample_counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield chunks (r, N) of how often each row is drawn, `resamples` in all; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CHUNK_COUNTS // max(rows, 1)))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(0, rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def interval(value: float, samples: Floats, confidence: float) -> Interval:
    """Return value, low and high: the percentile interval of the samples; a resample without rows (NaN) does not count.

    Where no resample has a value (a slice so small that none drew it) both ends are the value itself.
    """
    seen = samples[~np.isnan(samples)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(seen, [tail, 1.0 - tail]) if len(seen) else (value, value)
    return {"value": round(float(value), DIGITS), "low": round(float(low), DIGITS), "high": round(float(high), DIGITS)}


def measure_slices(
    labels: Ints,
    logits: NDArray[np.floating],
    teacher_predictions: Ints | None,
    slices: Mapping[str, Bools],
    bins: int,
    draws: Draws,
) -> dict[str, dict[str, int | Interval]]:
    """Return slice -> support and the interval of each metric; a slice without rows has support 0 and no metric.

    `slices` are masks of shape (N,). Without `teacher_predictions` there is no `agreement`.
    """
    columns, spans = _columns(labels, logits, teacher_predictions, bins)
    masks = {name: mask for name, mask in slices.items() if mask.any()}
    measured: dict[str, dict[str, int | Interval]] = {name: {"support": 0} for name in slices}
    if not masks:
        return measured
    samples: dict[str, list[dict[str, Floats]]] = {name: [] for name in masks}
    for counts_RN in draws.counts(len(labels)):
        for name, mask in masks.items():
            samples[name].append(_metrics(counts_RN[:, mask] @ columns[mask], spans))
    for name, mask in masks.items():
        measured[name]["support"] = int(mask.sum())
        for metric, value in _metrics(mask[None, :].astype(np.float64) @ columns, spans).items():
            drawn = np.concatenate([chunk[metric] for chunk in samples[name]])
            measured[name][metric] = interval(float(value[0]), drawn, draws.confidence)
    return measured


def interval_of_mean(values: NDArray[np.generic], draws: Draws) -> Interval:
    """Return the interval of the mean of per-row values, such as right (1) or wrong (0); shape (N,)."""
    numbers = np.asarray(values, dtype=np.float64)
    drawn = len(numbers) if draws.groups is None else _drawn_sums(np.ones(len(numbers)), draws)
    return interval(float(numbers.mean()), _drawn_sums(numbers, draws) / drawn, draws.confidence)


def intervals_of_sums(columns_NK: Floats, metrics: Callable[[Floats], dict[str, Floats]], draws: Draws) -> dict[str, Interval]:
    """Return the interval of each metric that is a function of the columns' sums: (R, K) -> name -> (R,)."""
    values, samples = metrics(columns_NK.sum(axis=0, keepdims=True)), metrics(_drawn_sums(columns_NK, draws))
    return {name: interval(float(values[name][0]), samples[name], draws.confidence) for name in values}


def _drawn_sums(columns: Floats, draws: Draws) -> Floats:
    """Return the sums over the rows of each resample, (R,) of values (N,) or (R, K) of columns (N, K)."""
    return np.concatenate([counts_RN @ columns for counts_RN in draws.counts(len(columns))])


def _columns(
    labels: Ints, logits: NDArray[np.floating], teacher_predictions: Ints | None, bins: int
) -> tuple[Floats, dict[str, slice]]:
    """Return what each row adds to each sum, shape (N, K), and which columns belong to which part."""
    log_probabilities_NC = log_softmax(logits)
    classes = log_probabilities_NC.shape[1]
    predictions = log_probabilities_NC.argmax(axis=1)
    parts: dict[str, Floats] = {
        "support": np.ones((len(labels), 1)),
        "correct": (predictions == labels)[:, None].astype(np.float64),
        "nll": _nll(log_probabilities_NC, labels)[:, None],
        "gaps": _confidence_gaps(log_probabilities_NC, labels, bins),
        "hits": _hits(labels, predictions, classes),
        "truth": _one_hot(labels, classes),
    }
    if teacher_predictions is not None:
        parts["agree"] = (predictions == teacher_predictions)[:, None].astype(np.float64)
    spans, start = {}, 0
    for name, part in parts.items():
        spans[name] = slice(start, start + part.shape[1])
        start += part.shape[1]
    return np.concatenate(list(parts.values()), axis=1), spans


def _metrics(sums_RK: Floats, spans: Mapping[str, slice]) -> dict[str, Floats]:
    """Return metric -> its value in each resample, shape (R,); NaN where a resample has no row."""
    support = sums_RK[:, spans["support"]][:, 0]
    rows = np.where(support > 0, support, np.nan)
    metrics = {
        "accuracy": sums_RK[:, spans["correct"]][:, 0] / rows,
        "macro_f1": _macro_f1(sums_RK[:, spans["hits"]], sums_RK[:, spans["truth"]]),
        "nll_nats_per_example": sums_RK[:, spans["nll"]][:, 0] / rows,
        "calibration_error": np.abs(sums_RK[:, spans["gaps"]]).sum(axis=1) / rows,
    }
    if "agree" in spans:
        metrics["agreement"] = sums_RK[:, spans["agree"]][:, 0] / rows
    return metrics


def _nll(log_probabilities_NC: Floats, labels: Ints) -> Floats:
    return -log_probabilities_NC[np.arange(len(labels)), labels]


def _confidence_gaps(log_probabilities_NC: Floats, labels: Ints, bins: int) -> Floats:
    """Return confidence minus correctness of each row in the column of its bin, shape (N, B)."""
    confidence = np.exp(log_probabilities_NC.max(axis=1))
    correct = log_probabilities_NC.argmax(axis=1) == labels
    # Bins are closed on the right, as in Guo et al.: a confidence of exactly 1.0 belongs to the last.
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps_NB = np.zeros((len(labels), bins))
    gaps_NB[np.arange(len(labels)), place] = confidence - correct
    return gaps_NB


def _one_hot(values: Ints, classes: int) -> Floats:
    return np.eye(classes)[values]


def _hits(labels: Ints, predictions: Ints, classes: int) -> Floats:
    """Return per class two columns, shape (N, 2C): true positives, then true + predicted."""
    truth, guess = _one_hot(labels, classes), _one_hot(predictions, classes)
    return np.concatenate([truth * guess, truth + guess], axis=1)


def _macro_f1(hits_R2C: Floats, truth_RC: Floats) -> Floats:
    """Return the mean over classes with rows of 2 TP / (true + predicted), shape (R,); NaN where no class has rows."""
    positives_RC, both_RC = np.split(hits_R2C, 2, axis=1)
    f1_RC = 2.0 * positives_RC / np.maximum(both_RC, 1.0)
    present_RC = truth_RC > 0
    present = present_RC.sum(axis=1)
    return np.where(present > 0, (f1_RC * present_RC).sum(axis=1) / np.maximum(present, 1), np.nan)
