"""Every loss is zero when student and teacher agree, never negative, and a mean over rows in nats."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, rel_entr, softmax

from tasks.params.classification import Distill
from tasks.training.losses import LOSSES, distillation_loss

LOGITS = arrays(np.float32, (5, 3), elements=st.floats(-8, 8, width=32))


@pytest.mark.parametrize("name", LOSSES)
@given(logits=LOGITS, temperature=st.floats(0.5, 8))
def test_zero_when_student_equals_teacher(name: str, logits: np.ndarray, temperature: float) -> None:
    values = torch.from_numpy(logits)
    assert LOSSES[name](values, values, temperature).abs().max() < 1e-5


@pytest.mark.parametrize("name", LOSSES)
@given(student=LOGITS, teacher=LOGITS, temperature=st.floats(0.5, 8))
def test_never_negative_and_one_number_a_row(name: str, student: np.ndarray, teacher: np.ndarray, temperature: float) -> None:
    rows = LOSSES[name](torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert rows.shape == (5,)
    assert rows.min() > -1e-4


@given(student=LOGITS, teacher=LOGITS)
def test_forward_kl_equals_the_definition(student: np.ndarray, teacher: np.ndarray) -> None:
    p, log_p, log_q = softmax(teacher / 2, 1), log_softmax(teacher / 2, 1), log_softmax(student / 2, 1)
    expected = 4 * (p * (log_p - log_q)).sum(axis=1)
    got = LOSSES["forward_kl"](torch.from_numpy(student), torch.from_numpy(teacher), 2.0)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)


@given(student=LOGITS, teacher=LOGITS, temperature=st.floats(0.5, 8))
def test_reverse_kl_is_forward_kl_with_the_roles_changed(student: np.ndarray, teacher: np.ndarray, temperature: float) -> None:
    first, second = torch.from_numpy(student), torch.from_numpy(teacher)
    expected = LOSSES["forward_kl"](second, first, temperature)
    assert torch.equal(LOSSES["reverse_kl"](first, second, temperature), expected)


@given(student=LOGITS, teacher=LOGITS)
def test_jensen_shannon_equals_the_definition_is_symmetric_and_bounded(student: np.ndarray, teacher: np.ndarray) -> None:
    p, q = softmax(teacher.astype(float) / 2, 1), softmax(student.astype(float) / 2, 1)
    expected = 4 * 0.5 * (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(axis=1)
    first, second = torch.from_numpy(student), torch.from_numpy(teacher)
    got = LOSSES["jensen_shannon"](first, second, 2.0)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    torch.testing.assert_close(got, LOSSES["jensen_shannon"](second, first, 2.0), atol=1e-5, rtol=1e-5)
    assert got.max() <= 4 * np.log(2.0) + 1e-5


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_gradients_equal_finite_differences_in_double_precision(name: str, temperature: float) -> None:
    rng = torch.Generator().manual_seed(3)
    student = torch.randn(4, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    teacher = 2.0 * torch.randn(4, 3, dtype=torch.float64, generator=rng)
    assert torch.autograd.gradcheck(lambda logits: LOSSES[name](logits, teacher, temperature), (student,))


@pytest.mark.parametrize(("name", "share"), [("forward_kl", 1.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.25)])
def test_near_agreement_losses_are_known_shares_of_the_same_quadratic(name: str, share: float) -> None:
    teacher = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64)
    student = teacher + 1e-4 * torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    forward = float(LOSSES["forward_kl"](student, teacher, 2.0))
    assert float(LOSSES[name](student, teacher, 2.0)) == pytest.approx(share * forward, rel=1e-3)


def test_params_offer_every_loss() -> None:
    assert set(get_args(Distill.model_fields["loss"].annotation)) == set(LOSSES)


def test_rows_without_a_label_take_no_cross_entropy() -> None:
    student, teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    options = {"loss": "forward_kl", "temperature": 1.0, "kd_weight": 0.25}
    kd = float(LOSSES["forward_kl"](student, teacher, 1.0)[0])
    hard = float(torch.nn.functional.cross_entropy(student[:1], torch.tensor([1])))
    unlabelled = float(distillation_loss(student, teacher, torch.tensor([-1, -1]), **options))
    mixed = float(distillation_loss(student, teacher, torch.tensor([1, -1]), **options))
    assert unlabelled == pytest.approx(kd)
    assert mixed == pytest.approx((0.25 * kd + 0.75 * hard + kd) / 2)
