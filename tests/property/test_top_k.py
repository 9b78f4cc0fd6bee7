"""A student that is told the k best pieces and the share of the rest: the divergence over k + 1 outcomes, and its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.models.predict import Head
from tasks.training.chunked_loss import Recipe, causal_loss
from tasks.training.losses import LOSSES, forward_kl
from tasks.training.top_k import TopK, best, kl_value_and_slope, outcomes


def logits(count: int, vocabulary: int, seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, vocabulary), generator=generator, dtype=torch.float64) * scale


SIZES = {"count": st.integers(1, 9), "vocabulary": st.integers(3, 14), "seed": st.integers(0, 999), "data": st.data()}


@given(**SIZES)
def test_the_best_and_the_rest_share_everything(count: int, vocabulary: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, vocabulary - 1))
    told = best(logits(count, vocabulary, seed), k)
    torch.testing.assert_close(told.log_shares_NR.exp().sum(dim=-1), torch.ones(count, dtype=torch.float64))
    kept = told.log_shares_NR[:, :-1]
    others = torch.log_softmax(logits(count, vocabulary, seed), dim=-1).scatter(1, told.ids_NK, float("-inf"))
    assert bool((kept.amin(dim=-1) >= others.amax(dim=-1)).all())


@given(**SIZES)
def test_the_written_out_gradient_is_that_of_autograd(count: int, vocabulary: int, seed: int, data: st.DataObject) -> None:
    told = best(logits(count, vocabulary, seed), data.draw(st.integers(1, vocabulary - 1)))
    student = logits(count, vocabulary, seed + 1).requires_grad_()
    plain = forward_kl(outcomes(torch.log_softmax(student, dim=-1), told.ids_NK), told.log_shares_NR, 1.0).sum()
    (slope,) = torch.autograd.grad(plain, student)
    value, written_out = kl_value_and_slope(student.detach(), told)
    torch.testing.assert_close(value, plain.detach())
    torch.testing.assert_close(written_out, slope)


@pytest.mark.parametrize("loss", LOSSES)
@given(kd_weight=st.sampled_from([0.4, 1.0]), **SIZES)
def test_it_is_zero_at_the_teacher_and_never_above_the_whole(
    loss: str, kd_weight: float, count: int, vocabulary: int, seed: int, data: st.DataObject
) -> None:
    chunk, k = data.draw(st.integers(1, 9)), data.draw(st.integers(1, vocabulary - 1))
    eye = torch.eye(vocabulary, dtype=torch.float64)
    teacher, student = (Head(logits(count, vocabulary, seed + one), eye) for one in (0, 1))
    targets = torch.zeros(count, dtype=torch.int64)
    recipe = Recipe(loss, 1.0, 1.0, chunk, torch.float64)
    told = best(teacher.hidden_ND, k)
    assert float(causal_loss(teacher, told, targets, recipe)) == pytest.approx(0.0, abs=1e-12)
    mixed = Recipe(loss, 1.0, kd_weight, chunk, torch.float64)
    part, whole = (causal_loss(student, what, targets, mixed) for what in (told, teacher))
    assert 0.0 <= float(part) <= float(whole) + 1e-12
    nearly_all = causal_loss(student, best(teacher.hidden_ND, vocabulary - 1), targets, mixed)
    torch.testing.assert_close(nearly_all, whole)  # of one piece left over the rest is that piece


def test_a_sure_student_has_a_finite_loss_and_gradient() -> None:
    told = best(torch.tensor([[2.0, 1.0, 0.0, -1.0]]), 2)
    value, slope = kl_value_and_slope(torch.tensor([[300.0, 0.0, -300.0, -300.0]]), told)
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(slope).all())
    same_value, same_slope = kl_value_and_slope(torch.tensor([[2.0, 1.0, 0.0, -1.0]]), TopK(told.ids_NK, told.log_shares_NR))
    assert float(same_value) == pytest.approx(0.0, abs=1e-6)
    assert float(same_slope.abs().max()) == pytest.approx(0.0, abs=1e-6)
