"""Losses on hidden states and relations: zero at agreement, never negative, one number a row; padding never counts."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax

from tasks.params.classification import Hidden
from tasks.training.hidden import HIDDEN_LOSSES, fit_projection, layer_pairs, relation_kl, row_states, weighed

STATES = arrays(np.float32, (3, 2, 2, 4), elements=st.floats(-4, 4, width=32))
VALUES = arrays(np.float32, (2, 5, 8), elements=st.floats(-3, 3, width=32))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("name", HIDDEN_LOSSES)
@given(states=STATES)
def test_hidden_losses_are_zero_at_agreement(name: str, states: np.ndarray) -> None:
    values = torch.from_numpy(states) + torch.tensor([5.0, 0.0, 0.0, 0.0])  # the zero vector has no direction
    found = HIDDEN_LOSSES[name](values, values)
    assert found.shape == (3,)
    assert found.abs().max() < 1e-5


@pytest.mark.parametrize("name", HIDDEN_LOSSES)
@given(student=STATES, teacher=STATES)
def test_hidden_losses_are_never_negative_and_row_by_row(name: str, student: np.ndarray, teacher: np.ndarray) -> None:
    first, second = torch.from_numpy(student), torch.from_numpy(teacher)
    found = HIDDEN_LOSSES[name](first, second)
    assert found.min() > -1e-5
    torch.testing.assert_close(found[1:2], HIDDEN_LOSSES[name](first[1:2], second[1:2]))


def test_a_constant_guess_of_the_mean_has_an_mse_of_one_variance() -> None:
    teacher = torch.randn(4000, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    assert float(HIDDEN_LOSSES["mse"](torch.zeros_like(teacher), teacher).mean()) == pytest.approx(1.0, abs=0.05)
    assert float(HIDDEN_LOSSES["cosine"](-teacher, teacher).mean()) == pytest.approx(2.0)


@pytest.mark.parametrize("name", HIDDEN_LOSSES)
def test_gradients_of_hidden_losses_equal_finite_differences(name: str) -> None:
    rng = torch.Generator().manual_seed(1)
    student = torch.randn(2, 2, 2, 3, dtype=torch.float64, generator=rng, requires_grad=True)
    teacher = torch.randn(2, 2, 2, 3, dtype=torch.float64, generator=rng)
    assert torch.autograd.gradcheck(lambda states: HIDDEN_LOSSES[name](states, teacher), (student,))


@given(seed=st.integers(0, 20), narrower=st.integers(0, 3))
def test_the_projection_of_a_student_that_holds_the_teachers_channels_finds_them(seed: int, narrower: int) -> None:
    """A student that kept some channels gets those back exactly; one that kept all is the teacher."""
    teacher = torch.randn(60, 2, 2, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    kept = list(range(6 - narrower))
    found = fit_projection(teacher[..., kept], teacher)(teacher[..., kept])
    torch.testing.assert_close(found[..., kept], teacher[..., kept], atol=1e-3, rtol=1e-3)
    others = teacher[..., 6 - narrower :]
    assert ((found[..., 6 - narrower :] - others) ** 2).mean() <= ((others - others.mean(0)) ** 2).mean() + 1e-4 or (
        narrower == 0
    )


def test_a_projection_exists_where_channels_repeat_or_rows_are_few() -> None:
    student = torch.randn(3, 1, 2, 1).repeat(1, 1, 1, 8)
    assert fit_projection(student, torch.randn(3, 1, 2, 5))(student).isfinite().all()


@given(student=st.integers(1, 30), teacher=st.integers(1, 30))
def test_layers_are_paired_in_order_and_the_last_goes_with_the_last(student: int, teacher: int) -> None:
    if student > teacher:
        student, teacher = teacher, student
    pairs = layer_pairs(student, teacher, "uniform")
    assert [ours for ours, _ in pairs] == list(range(1, student + 1))
    theirs = [one for _, one in pairs]
    assert theirs == sorted(set(theirs))
    assert theirs[0] >= 1
    assert theirs[-1] == teacher
    assert layer_pairs(student, teacher, "last") == [(student, teacher)]


@pytest.mark.parametrize(("reads", "places"), [("first", [0, 0]), ("last", [4, 2])])
def test_row_states_are_the_token_read_and_the_mean_without_padding(reads: str, places: list[int]) -> None:
    states = torch.randn(2, 5, 3)
    found = row_states(states, MASK, reads)
    padded = torch.where(MASK.bool().unsqueeze(-1), states, 100.0)
    assert torch.equal(row_states(padded, MASK, reads), row_states(torch.where(padded == 100, 0.0, padded), MASK, reads)) or (
        reads == "first"
    )
    for row, place in enumerate(places):
        assert torch.equal(found[row, 0], states[row, place])
        torch.testing.assert_close(found[row, 1], states[row, : int(MASK[row].sum())].mean(dim=0))


def naive_relations(values: np.ndarray, heads: int) -> list[np.ndarray]:
    return [softmax(part @ part.T / math.sqrt(part.shape[1]), axis=1) for part in np.split(values, heads, axis=1)]


@given(student=VALUES, teacher=arrays(np.float32, (2, 5, 12), elements=st.floats(-3, 3, width=32)))
def test_relation_kl_equals_the_definition(student: np.ndarray, teacher: np.ndarray) -> None:
    found = relation_kl(torch.from_numpy(student), torch.from_numpy(teacher), MASK, 4)
    for row, tokens in enumerate((5, 3)):
        ours, theirs = (naive_relations(x[row, :tokens].astype(float), 4) for x in (student, teacher))
        expected = np.mean([rel_entr(t, s).sum(axis=1).mean() for s, t in zip(ours, theirs, strict=True)])
        assert float(found[row]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("heads", [1, 2, 8])
@given(values=VALUES, padding=st.floats(-50, 50))
def test_relation_kl_is_zero_at_agreement_whatever_stands_in_the_padding(heads: int, values: np.ndarray, padding: float) -> None:
    first = torch.from_numpy(values)
    second = torch.where(MASK.bool().unsqueeze(-1), first, padding)
    assert relation_kl(first, second, MASK, heads).abs().max() < 1e-5


def test_gradients_of_relation_kl_equal_finite_differences_and_padding_has_none() -> None:
    rng = torch.Generator().manual_seed(2)
    student = torch.randn(2, 5, 4, dtype=torch.float64, generator=rng, requires_grad=True)
    teacher = torch.randn(2, 5, 6, dtype=torch.float64, generator=rng)
    assert torch.autograd.gradcheck(lambda values: relation_kl(values, teacher, MASK, 2), (student,))
    relation_kl(student, teacher, MASK, 2).sum().backward()
    assert student.grad is not None
    assert (student.grad[1, 3:] == 0).all()


def test_a_dynamic_weight_makes_both_losses_count_the_same() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    main, extra = x**2, 10 * x
    total = main + weighed(main, extra, None)
    assert float(total.detach()) == pytest.approx(8.0)
    (gradient,) = torch.autograd.grad(total, x)
    assert float(gradient) == pytest.approx(4.0 + 4.0 / 20.0 * 10.0)
    assert float(weighed(x**2, 10 * x, 0.5).detach()) == pytest.approx(10.0)
    assert float(weighed(x**2, 0 * x, None).detach()) == 0.0


def test_params_offer_every_hidden_loss() -> None:
    assert set(get_args(Hidden.model_fields["loss"].annotation)) == set(HIDDEN_LOSSES)
