"""The chunked loss of language models: the value and the gradients of the plain one, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tasks.measuring.cost import peak_memory_bytes
from tasks.models.checkpoint import causal_lm_from_config
from tasks.models.devices import Device
from tasks.models.predict import Head, next_tokens, predicting
from tasks.training.causal_lm import Imitated, blocks_loss
from tasks.training.chunked_loss import Recipe, causal_loss, token_loss
from tasks.training.losses import LOSSES
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
    count=st.integers(1, 20),
    chunk=st.integers(1, 24),
    vocabulary=st.integers(2, 12),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 2.0]),
    kd_weight=st.sampled_from([0.0, 0.3, 1.0]),
    taught=st.booleans(),
    width=st.sampled_from([3, 20, 50]),
)
def test_value_and_gradients_are_those_of_the_plain_loss(
    loss: str, count: int, chunk: int, vocabulary: int, seed: int, temperature: float, kd_weight: float, taught: bool, width: int
) -> None:
    """Slopes are held for 1, 10 and 25 tokens of these widths at once, but always for whole chunks."""
    student, other = heads(count, vocabulary, width, seed)
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


@pytest.mark.parametrize("width", [3, 40], ids=["slopes of a chunk at once", "of all tokens"])
def test_a_head_in_bf16_adds_the_gradient_of_each_part_to_those_before(width: int) -> None:
    exact, teacher = heads(30, 50, width, 0)
    targets = torch.zeros(30).long()
    whole = causal_loss(exact, teacher, targets, Recipe("forward_kl", 1.0, 1.0, 30, torch.float64))
    wanted = torch.autograd.grad(whole, (exact.hidden_ND, exact.weight_VD))
    hidden = exact.hidden_ND.detach().float().requires_grad_()
    student = Head(hidden, exact.weight_VD.detach().float().requires_grad_(), adds_itself=True)
    for rows in (slice(0, 12), slice(12, 30)):
        part = Head(student.hidden_ND[rows], student.weight_VD, adds_itself=True)
        told = Head(teacher.hidden_ND[rows].float(), teacher.weight_VD.float())
        loss = causal_loss(part, told, targets[rows], Recipe("forward_kl", 1.0, 1.0, 5, torch.bfloat16))
        (loss * len(targets[rows]) / 30).backward()
    for found, gradient in zip((student.hidden_ND.grad, student.weight_VD.grad), wanted, strict=True):
        assert found is not None
        assert found.dtype == torch.float32
        assert float((found - gradient).norm() / gradient.norm()) < 0.02


def test_how_many_rows_stay_in_the_cache_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, gradients = torch.zeros(30).long(), []
    for size in (1, 10**6):
        monkeypatch.setattr("tasks.training.chunked_loss.CACHED_BYTES", size)
        student, teacher = heads(30, 50, 8, 0, torch.float32)
        found = causal_loss(student, teacher, targets, Recipe("forward_kl", 1.0, 0.6, 9, torch.float32))
        gradients.append(torch.autograd.grad(found, (student.hidden_ND, student.weight_VD)))
    for by_row, by_chunk in zip(*gradients, strict=True):
        assert torch.equal(by_row, by_chunk)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_zero_where_student_and_teacher_agree(loss: str) -> None:
    student, _ = heads(9, 11, 4, 0)
    recipe = Recipe(loss, 1.0, 1.0, 4, torch.float64)
    found = causal_loss(student, Head(student.hidden_ND.detach(), student.weight_VD.detach()), torch.zeros(9).long(), recipe)
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
        found = causal_loss(student, teacher, torch.zeros(count).long(), Recipe(loss, 1.0, 1.0, 8, torch.float32))
    sums = [tensor.numel() for tensor in found.grad_fn.sums]  # its own, handed on as they are
    assert sums == [count * width, vocabulary * width]
    largest_chunk = 8 * vocabulary
    assert max([*kept, *sums]) <= max(largest_chunk, *sums) < count * vocabulary


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


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama_biases"])
def test_the_gradients_of_parts_are_those_of_the_batch_of_two_plain_models(name: str) -> None:
    """The path of one process: the loss adds the gradient of the head itself, tied embeddings those of their rows alone."""
    torch.manual_seed(0)
    teacher, model = (causal_lm_from_config(config_of(name)) for _ in range(2))
    ids = torch.randint(0, 258, (6, 12))
    logits, others = (of(input_ids=ids).logits[:, :-1].flatten(0, 1).log_softmax(-1) for of in (model, teacher))
    plain = functional.kl_div(logits, others.detach(), reduction="batchmean", log_target=True)
    expected = torch.autograd.grad(plain, list(model.parameters()))

    device, recipe = Device(torch.device("cpu"), "fp32", 1), Recipe("forward_kl", 1.0, 1.0, 5, torch.float32)
    loss = blocks_loss(model, Imitated(teacher), recipe, device, lambda rows: ids[torch.from_numpy(rows)])
    values = []
    for rows in np.array_split(np.arange(6), 3):
        part = loss(model, rows) / 3
        part.backward()
        values.append(float(part.detach()))
    assert sum(values) == pytest.approx(float(plain.detach()), rel=1e-5)
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.layout == torch.strided
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-6, rtol=1e-4)


def test_gradients_are_taken_once() -> None:
    student, teacher = heads(4, 5, 3, 0)
    found = causal_loss(student, teacher, torch.zeros(4).long(), Recipe("forward_kl", 1.0, 1.0, 4, torch.float64))
    found.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="taken before"):
        found.backward()
