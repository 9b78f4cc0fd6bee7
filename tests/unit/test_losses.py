"""Every loss is zero when student and teacher agree, never negative, and a mean over rows in nats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from tasks.distillation.losses import LOSSES, distillation_loss

LOGITS = arrays(np.float32, (5, 3), elements=st.floats(-8, 8, width=32))


@pytest.mark.parametrize("name", LOSSES)
@given(logits=LOGITS, temperature=st.floats(0.5, 8))
def test_zero_when_student_equals_teacher(name: str, logits: np.ndarray, temperature: float) -> None:
    values = torch.from_numpy(logits)
    assert LOSSES[name](values, values, temperature).abs().max() < 1e-5


@pytest.mark.parametrize("name", LOSSES)
@given(student=LOGITS, teacher=LOGITS, temperature=st.floats(0.5, 8))
def test_never_negative_and_one_number_a_row(
    name: str, student: np.ndarray, teacher: np.ndarray, temperature: float
) -> None:
    rows = LOSSES[name](torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert rows.shape == (5,)
    assert rows.min() > -1e-4


@given(student=LOGITS, teacher=LOGITS)
def test_forward_kl_equals_the_definition(student: np.ndarray, teacher: np.ndarray) -> None:
    p, log_p, log_q = softmax(teacher / 2, 1), log_softmax(teacher / 2, 1), log_softmax(student / 2, 1)
    expected = 4 * (p * (log_p - log_q)).sum(axis=1)
    got = LOSSES["forward_kl"](torch.from_numpy(student), torch.from_numpy(teacher), 2.0)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)


def test_rows_without_a_label_take_no_cross_entropy() -> None:
    student, teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    options = {"loss": "forward_kl", "temperature": 1.0, "kd_weight": 0.25}
    kd = float(LOSSES["forward_kl"](student, teacher, 1.0)[0])
    hard = float(torch.nn.functional.cross_entropy(student[:1], torch.tensor([1])))
    unlabelled = float(distillation_loss(student, teacher, torch.tensor([-1, -1]), **options))
    mixed = float(distillation_loss(student, teacher, torch.tensor([1, -1]), **options))
    assert unlabelled == pytest.approx(kd)
    assert mixed == pytest.approx((0.25 * kd + 0.75 * hard + kd) / 2)
