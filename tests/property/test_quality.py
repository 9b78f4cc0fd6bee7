"""Quality metrics against scikit-learn, and what must hold of their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, f1_score, log_loss

from tasks.measuring import quality

METRICS = {"accuracy", "macro_f1", "nll_nats_per_example", "calibration_error", "agreement"}


def example(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, logits that know something of them, and another model's predictions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)).astype(np.float32) + 1.5 * np.eye(classes, dtype=np.float32)[labels]
    return labels, logits, np.where(rng.random(rows) < 0.8, logits.argmax(1), rng.integers(0, classes, rows))


shapes = st.tuples(st.integers(1, 60), st.integers(2, 5), st.integers(0, 10_000))


def measured(labels, logits, teacher, slices, **changes):
    draws = quality.Draws(**{"resamples": 200, "confidence": 0.95, "seed": 0, **changes})
    return quality.measure_slices(labels, logits, teacher, slices, 10, draws)


@given(shapes)
@settings(deadline=None)
def test_metrics_equal_scikit_learn(shape):
    labels, logits, teacher = example(*shape)
    classes, predictions = logits.shape[1], logits.argmax(1)
    present = np.unique(labels)
    assert quality.accuracy(labels, predictions) == pytest.approx(accuracy_score(labels, predictions))
    assert quality.macro_f1(labels, predictions, classes) == pytest.approx(
        f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
    )
    probabilities = np.exp(quality.log_softmax(logits))
    assert quality.nll_nats_per_example(logits, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=range(classes)), rel=1e-6
    )
    assert quality.agreement(predictions, teacher) == pytest.approx(accuracy_score(teacher, predictions))


@given(shapes)
@settings(deadline=None)
def test_kl_equals_scipy_and_is_zero_for_the_teacher_itself(shape):
    _, logits, _ = example(*shape)
    other = np.roll(logits, 1, axis=0)
    ours, theirs = (np.exp(quality.log_softmax(each)) for each in (logits, other))
    assert quality.kl_nats_per_example(logits, other) == pytest.approx(entropy(theirs, ours, axis=1).mean(), abs=1e-9)
    assert quality.kl_nats_per_example(logits, logits) == 0.0


def reference_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Guo et al. as written: bins of (lower, upper], the weighted gap of accuracy and confidence."""
    probabilities = np.exp(quality.log_softmax(logits))
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for lower, upper in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence > lower) & (confidence <= upper)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@given(shapes, st.integers(1, 20))
@settings(deadline=None)
def test_calibration_error_is_that_of_the_paper(shape, bins):
    labels, logits, _ = example(*shape)
    value = quality.calibration_error(logits, labels, bins)
    assert value == pytest.approx(reference_calibration_error(logits, labels, bins), abs=1e-9)
    assert 0.0 <= value <= 1.0


@given(shapes)
@settings(deadline=None, max_examples=30)
def test_slices_hold_the_plain_metrics_and_intervals_around_them(shape):
    labels, logits, teacher = example(*shape)
    classes = logits.shape[1]
    masks = {"overall": np.ones(len(labels), dtype=bool), "class:0": labels == 0, "none": np.zeros(len(labels), bool)}
    found = measured(labels, logits, teacher, masks)
    assert found["none"] == {"support": 0}
    for name, mask in masks.items():
        if not mask.any():
            continue
        chosen = logits[mask].argmax(1)
        plain = {
            "accuracy": quality.accuracy(labels[mask], chosen),
            "macro_f1": quality.macro_f1(labels[mask], chosen, classes),
            "nll_nats_per_example": quality.nll_nats_per_example(logits[mask], labels[mask]),
            "calibration_error": quality.calibration_error(logits[mask], labels[mask], 10),
            "agreement": quality.agreement(chosen, teacher[mask]),
        }
        assert found[name]["support"] == mask.sum()
        assert {m: found[name][m]["value"] for m in METRICS} == pytest.approx(plain, abs=1e-6)
        assert all(found[name][m]["low"] <= found[name][m]["high"] for m in METRICS)


def test_one_row_has_an_interval_of_no_width():
    found = measured(np.array([1]), np.array([[0.0, 2.0]]), np.array([0]), {"overall": np.array([True])})["overall"]
    assert found["support"] == 1
    assert found["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["agreement"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_one_class_only():
    labels = np.zeros(20, dtype=np.int64)
    logits = np.tile([3.0, -3.0], (20, 1))
    found = measured(labels, logits, None, {"overall": np.ones(20, dtype=bool)})["overall"]
    assert found["macro_f1"]["value"] == 1.0
    assert "agreement" not in found


def test_extreme_logits_stay_finite():
    found = measured(
        np.array([0, 1]), np.array([[1e4, -1e4], [1e4, -1e4]], dtype=np.float32), None, {"overall": np.ones(2, bool)}
    )["overall"]
    assert found["nll_nats_per_example"]["value"] == pytest.approx(1e4)
    assert found["calibration_error"]["value"] == pytest.approx(0.5)


def test_a_slice_no_resample_draws_keeps_its_value_as_interval():
    assert quality.interval(0.5, np.array([np.nan, np.nan]), 0.95) == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_resamples_are_deterministic_and_draw_every_row_alike(monkeypatch):
    first, second = (np.concatenate(list(quality.resample_counts(50, 2_000, seed=3))) for _ in range(2))
    assert (first == second).all()
    assert (first.sum(axis=1) == 50).all()
    assert np.abs(first.mean(axis=0) - 1.0).max() < 0.12  # five standard errors of a mean of 2,000 draws
    assert not (first == np.concatenate(list(quality.resample_counts(50, 2_000, seed=4)))).all()
    monkeypatch.setattr(quality, "CHUNK_COUNTS", 50 * 7)
    assert (np.concatenate(list(quality.resample_counts(50, 2_000, seed=3))) == first).all()


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth, trials = 0.8, 300
    hits = 0
    for trial in range(trials):
        found = quality.interval_of_mean(rng.random(200) < truth, quality.Draws(400, 0.9, trial))
        hits += found["low"] <= truth <= found["high"]
    assert 0.84 <= hits / trials <= 0.95


def test_interval_of_a_mean_is_that_of_accuracy():
    labels, logits, _ = example(100, 2, 0)
    found = measured(labels, logits, None, {"overall": np.ones(100, dtype=bool)}, resamples=500)["overall"]["accuracy"]
    assert quality.interval_of_mean(logits.argmax(1) == labels, quality.Draws(500, 0.95, 0)) == found
