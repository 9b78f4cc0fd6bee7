"""A student beside its teacher without labels: each metric as it is defined, of two classes and of more, with its interval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest

from tasks.files import read_json
from tasks.measuring.pieces import pieces_of
from tasks.measuring.quality import Draws, log_softmax
from tasks.measuring.unlabelled import calibrating_temperature, measure_unlike, unlike

DRAWS = Draws(400, 0.9, 3)


def logits(rows: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, classes)) * 2.0


def shares(values: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(values))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_each_metric_is_as_it_is_defined(classes: int) -> None:
    student, teacher = logits(200, classes, 0), logits(200, classes, 1)
    found = unlike(student, teacher, 1.7).values()
    own, other, q = student.argmax(1), teacher.argmax(1), shares(teacher / 1.7)
    top = np.sort(teacher, axis=1)
    assert found["agreement"] == np.mean(own == other)
    assert found["confident_disagreement"] == np.mean((own != other) & (top[:, -1] - top[:, -2] > 2.0))
    assert found["expected_drop"] == pytest.approx(np.mean([q[i, other[i]] - q[i, own[i]] for i in range(200)]))
    assert found["prior_gap"] == pytest.approx(np.abs(shares(teacher).mean(0) - shares(student).mean(0)).max())
    distances = [jensenshannon(p, s, base=2) for p, s in zip(shares(teacher), shares(student), strict=True)]
    assert found["probability_loyalty"] == pytest.approx(1.0 - np.mean(distances))
    kl = np.sum(shares(teacher) * (log_softmax(teacher) - log_softmax(student)), axis=1)
    assert found["kl_nats_per_example"] == pytest.approx(kl.mean())
    assert not {"response_gap", "flips"} & set(found)


def test_of_two_classes_the_drop_is_that_of_the_calibrated_probability() -> None:
    student, teacher = logits(300, 2, 0), logits(300, 2, 1)
    apart = student.argmax(1) != teacher.argmax(1)
    expected = np.mean(apart * (2.0 * shares(teacher / 2.0).max(1) - 1.0))
    assert unlike(student, teacher, 2.0).values()["expected_drop"] == pytest.approx(expected)


def test_a_teacher_is_like_itself() -> None:
    found = unlike(logits(50, 3, 0), logits(50, 3, 0), 1.0).values()
    assert (found["agreement"], found["probability_loyalty"]) == (1.0, pytest.approx(1.0, abs=1e-7))
    assert sum(value for name, value in found.items() if name not in ("agreement", "probability_loyalty")) == pytest.approx(0.0)
    assert np.isfinite([*unlike(np.array([[0.0, 2000.0]]), np.array([[2000.0, 0.0]]), 1.0).values().values()]).all()


def test_the_response_gap_is_of_the_logit_above_the_others() -> None:
    teacher = np.array([[0.0, 1.0], [0.0, 1.5], [2.0, 0.0], [2.0, 0.4]])
    student = np.array([[0.0, 1.0], [3.0, 0.5], [2.0, 0.0], [2.5, 0.0]])
    rows = ["a", "a:links", "b", "b:links"]
    compared = unlike(student, teacher, 1.0, rows)
    only = compared.of(compared.changed)
    # d moves by -3.5 and -0.5 of the student, by 0.5 and 0.4 of the teacher
    assert only.values()["response_gap"] == pytest.approx((4.0 + 0.9) / 2.0)
    assert only.values()["flips"] == 0.5
    assert "response_gap" not in compared.of(np.ones(4, dtype=bool)).values()
    # a class more, which nobody moves: the others' mean falls by half of what it did
    more_s, more_t = (np.column_stack([each, np.zeros(4)]) for each in (student, teacher))
    wide = unlike(more_s, more_t, 1.0, rows)
    moved = [(s - s.mean()) * 1.5 for s in (more_s[1] - more_s[0], more_s[3] - more_s[2])]
    before = [(t - t.mean()) * 1.5 for t in (more_t[1] - more_t[0], more_t[3] - more_t[2])]
    expected = np.abs(np.mean(np.array(moved) - np.array(before), axis=0)).max()
    assert wide.of(wide.changed).values()["response_gap"] == pytest.approx(expected)
    with pytest.raises(KeyError):
        unlike(student[1:], teacher[1:], 1.0, rows[1:])


def test_intervals_hold_the_value_and_shares_are_exact() -> None:
    student, teacher = logits(120, 2, 0), logits(120, 2, 0) + logits(120, 2, 5) * 0.3
    masks = {"overall": np.ones(120, dtype=bool), "few": np.arange(120) < 3, "none": np.zeros(120, dtype=bool)}
    found = measure_unlike(unlike(student, teacher, 1.0), masks, DRAWS)
    assert found["none"] == {"support": 0}
    for name in ("overall", "few"):
        for metric, value in found[name].items():
            assert metric == "support" or 0.0 <= value["low"] <= value["value"] <= value["high"]
    hits = int((student.argmax(1) == teacher.argmax(1)).sum())
    exact = binomtest(hits, 120).proportion_ci(0.9)
    assert found["overall"]["agreement"] == {
        "value": round(hits / 120, 6),
        "low": round(exact.low, 6),
        "high": round(exact.high, 6),
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_makes_the_labels_most_likely(seed: int) -> None:
    values, rng = logits(400, 3, seed) * 3.0, np.random.default_rng(seed)
    labels = np.array([rng.choice(3, p=row) for row in shares(values / 2.5)])

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(values / np.exp(log_temperature))[np.arange(400), labels].mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert calibrating_temperature(values, labels) == pytest.approx(np.exp(best.x), rel=1e-5)


def test_pieces_that_are_lost_and_texts_that_grow(tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_model / "tokenizer.json"
    assert pieces_of(["film great"], whole, whole) == {"pieces_lost": 0.0, "tokens_ratio": 1.0}
    content = read_json(whole)
    content["model"]["vocab"].pop("great")
    smaller = tmp_path / "tokenizer.json"
    smaller.write_text(json.dumps(content), encoding="utf-8")
    found = pieces_of(["film great", "film film"], smaller, whole)
    assert found["pieces_lost"] == 0.25
    assert found["tokens_ratio"] > 1.0
