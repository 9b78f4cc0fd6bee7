"""The chunked loss of language models: the value and the gradients of the plain one, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tasks.distillation.causal import Head, Recipe, causal_loss, next_tokens, predicting, token_loss
from tasks.distillation.losses import LOSSES
from tasks.evaluation.cost import peak_memory_bytes
from tasks.models.checkpoint import causal_lm_from_config
from tests.causal import config_of


def heads(count: int, vocabulary: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Head, Head]:
    """Return a student's and a teacher's head, of other widths; the student's tensors want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    student = Head(draw(count, width).requires_grad_(), draw(vocabulary, width).requires_grad_())
    return student, Head(draw(count, width + 1), draw(vocabulary, width + 1))


@pytest.mark.parametrize("loss", LOSSES)
@given(
    count=st.integers(1, 20), chunk=st.integers(1, 24), vocabulary=st.integers(2, 12), seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 2.0]), kd_weight=st.sampled_from([0.0, 0.3, 1.0]), taught=st.booleans(),
)  # fmt: skip
def test_value_and_gradients_are_those_of_the_plain_loss(
    loss: str, count: int, chunk: int, vocabulary: int, seed: int, temperature: float, kd_weight: float, taught: bool
) -> None:
    student, other = heads(count, vocabulary, 3, seed)
    teacher = other if taught else None
    targets = torch.randint(0, vocabulary, (count,), generator=torch.Generator().manual_seed(seed))
    recipe = Recipe(loss, temperature, kd_weight, chunk, torch.float64)
    inputs = (student.hidden_ND, student.weight_VD)

    found = causal_loss(student, teacher, targets, recipe)
    gradients = torch.autograd.grad(3.0 * found, inputs)

    logits = student.hidden_ND @ student.weight_VD.T
    plain = functional.cross_entropy(logits, targets)
    if teacher is not None:
        kd = LOSSES[loss](logits, teacher.hidden_ND @ teacher.weight_VD.T, temperature).mean()
        plain = kd_weight * kd + (1.0 - kd_weight) * plain
    torch.testing.assert_close(found, plain)
    for mine, theirs in zip(gradients, torch.autograd.grad(3.0 * plain, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_zero_where_student_and_teacher_agree(loss: str) -> None:
    student, _ = heads(9, 11, 4, 0)
    recipe = Recipe(loss, 1.0, 1.0, 4, torch.float64)
    found = causal_loss(
        student, Head(student.hidden_ND.detach(), student.weight_VD.detach()), torch.zeros(9).long(), recipe
    )
    assert abs(float(found.detach())) < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_as_wide_as_the_vocabulary_is_kept_for_the_backward_pass(loss: str) -> None:
    count, vocabulary, width = 96, 500, 4
    student, teacher = heads(count, vocabulary, width, 0, torch.float32)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        causal_loss(student, teacher, torch.zeros(count).long(), Recipe(loss, 1.0, 1.0, 8, torch.float32))
    largest_chunk = 8 * vocabulary
    assert max(kept) <= max(largest_chunk, vocabulary * width, count * width) < count * vocabulary


def test_memory_grows_with_the_chunk_and_not_with_the_tokens() -> None:
    vocabulary, few, many = 4000, 64, 512

    def peak(count: int, compute: Callable[[Head, Head, Tensor], Any]) -> int:
        student, teacher = heads(count, vocabulary, 4, 0, torch.float32)
        targets = torch.zeros(count).long()
        return peak_memory_bytes(torch.nn.Module(), lambda: compute(student, teacher, targets))

    def chunked(student: Head, teacher: Head, targets: Tensor) -> Tensor:
        return causal_loss(student, teacher, targets, Recipe("forward_kl", 1.0, 0.9, 16, torch.float32))

    def plain(student: Head, teacher: Head, targets: Tensor) -> Tensor:
        recipe = Recipe("forward_kl", 1.0, 0.9, 16, torch.float32)
        others = teacher.hidden_ND @ teacher.weight_VD.T
        return token_loss(student.hidden_ND @ student.weight_VD.T, others, targets, recipe).mean()

    logits_bytes = 4 * (many - few) * vocabulary
    assert peak(many, plain) - peak(few, plain) > 2 * logits_bytes
    assert peak(many, chunked) - peak(few, chunked) < 0.02 * logits_bytes


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama_biases"])
def test_a_model_gets_the_gradients_of_its_own_loss(name: str) -> None:
    """Through body and head, tied or not: the stock class's loss is the reference."""
    torch.manual_seed(0)
    model = causal_lm_from_config(config_of(name))
    ids = torch.randint(0, 258, (3, 12))
    recipe = Recipe("forward_kl", 1.0, 0.0, 5, torch.float32)
    found = causal_loss(predicting(model, ids), None, next_tokens(ids), recipe)
    mine = torch.autograd.grad(found, list(model.parameters()))
    stock = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(found, stock)
    for one, other in zip(mine, torch.autograd.grad(stock, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
