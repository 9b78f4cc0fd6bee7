"""A model in int8 beside the teacher in int8: shares of the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.measuring.quality import Draws
from tasks.measuring.rows import measure_int8

LABELS = np.array([0, 1, 0, 1] * 50)
MINE = np.where(np.arange(200) % 5 == 0, 1 - LABELS, LABELS)  # wrong on 40 rows
TEACHERS = np.where(np.arange(200) % 10 == 0, 1 - LABELS, LABELS)  # wrong on 20 of these


def test_the_share_of_the_teachers_accuracy_is_paired() -> None:
    found = measure_int8(LABELS, MINE, LABELS, TEACHERS, Draws(400, 0.95, 0))
    assert found["accuracy"]["value"] == found["agreement_fp32"]["value"] == pytest.approx(0.8)
    assert found["agreement"]["value"] == pytest.approx(0.9)
    ratio = found["accuracy_ratio"]
    assert ratio["value"] == pytest.approx(160 / 180, abs=1e-6)
    unpaired = (found["accuracy"]["high"] - found["accuracy"]["low"]) / 0.9
    assert 0.0 < ratio["high"] - ratio["low"] < unpaired, "the student is wrong wherever the teacher is"


def test_a_teacher_that_is_never_right_divides_by_one_row() -> None:
    found = measure_int8(LABELS, LABELS, LABELS, 1 - LABELS, Draws(20, 0.95, 0))
    assert found["accuracy_ratio"]["value"] == 200.0
