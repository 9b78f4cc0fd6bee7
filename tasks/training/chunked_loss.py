"""The loss of a language model and its student, computed for a few tokens at a time.

Logits are as wide as the vocabulary: for 2,048 tokens and 49k pieces one copy is 0.4 GB in fp32, and a plain loop holds
several. Here head, loss and slopes are computed chunk by chunk, and slopes are held for no more tokens than the gradient of
the head's weight takes memory, so that does not grow with tokens x vocabulary. Value and gradients are those of the plain
computation, to rounding.

Letters: B blocks, T tokens, N predicted tokens, V pieces of the vocabulary, D hidden channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.predict import Head
from tasks.training.losses import LOSSES
from tasks.training.top_k import TopK, kl_value_and_slope, outcomes, precise, probabilities

CACHED_BYTES: Final = 3 << 20  # of a few rows of logits in fp32; of 1 to 12 MB the fastest with 2 MB of L2 and 32 of L3


@dataclass(frozen=True)
class Recipe:
    """What is minimised: kd_weight * `loss` + (1 - kd_weight) * cross-entropy, in nats, a mean over tokens.

    `dtype` is that of the matrix products of the heads; losses are always computed in fp32 (fp64 where the heads are).
    """

    loss: str
    temperature: float
    kd_weight: float
    chunk_tokens: int
    dtype: torch.dtype


def causal_loss(student: Head, teacher: Head | TopK | None, targets_N: Tensor, recipe: Recipe) -> Tensor:
    """Return the mean loss over tokens, a scalar in nats; without a teacher it is the cross-entropy alone.

    Of a `TopK` the divergence is that over its outcomes, at temperature 1.
    """
    leaf = student.weight_VD if student.adds_itself and student.weight_VD.requires_grad else None
    loss: Tensor = _ChunkedLoss.apply(student.hidden_ND, student.weight_VD, leaf, targets_N, teacher, recipe)
    return loss


class _ChunkedLoss(torch.autograd.Function):  # type: ignore[misc]
    """Computes the gradients together with the value, so that no logits are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        leaf: Tensor | None,
        targets_N: Tensor,
        teacher: Head | TopK | None,
        recipe: Recipe,
    ) -> Tensor:
        """Return the mean loss; each chunk's logits are gone when the next one's are made."""
        count = len(targets_N)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.to(recipe.dtype)
            other = teacher
            if isinstance(other, Head):
                other = Head(other.hidden_ND.to(recipe.dtype), other.weight_VD.to(recipe.dtype))
            total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
            gradient_ND, gradient_VD = torch.empty_like(hidden_ND), None
            for group in _slices(count, _group_tokens(weight, recipe.chunk_tokens)):
                hidden = hidden_ND[group].to(recipe.dtype)
                slope_NV = weight.new_empty((len(hidden), len(weight)))
                for chunk in _slices(len(hidden), recipe.chunk_tokens):
                    taught: Tensor | TopK | None = None
                    if isinstance(other, Head):
                        taught = other.hidden_ND[group][chunk] @ other.weight_VD.T
                    elif other is not None:
                        taught = other[group][chunk]
                    logits, targets = hidden[chunk] @ weight.T, targets_N[group][chunk]
                    total += _fill_slope(logits, taught, targets, recipe, slope_NV[chunk])
                gradient_ND[group] = slope_NV @ weight
                product_VD = slope_NV.T @ hidden
                gradient_VD = product_VD if gradient_VD is None else gradient_VD.to(weight_VD.dtype).add_(product_VD)
        assert gradient_VD is not None, "a loss is of one token or more"
        ctx.sums = gradient_ND, gradient_VD
        ctx.count = count
        ctx.leaf = leaf
        ctx.dtype = weight_VD.dtype
        return (total / count).to(weight_VD.dtype)

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden states and weight, times what the value was multiplied by; once for each value."""
        assert ctx.sums is not None, "the gradients of this value were taken before"
        (gradient_ND, gradient_VD), ctx.sums = ctx.sums, None
        factor = scale[0] / ctx.count
        gradient_ND.mul_(factor)
        others = (None,) * 4
        if ctx.leaf is not None and ctx.leaf.grad is not None:
            ctx.leaf.grad.add_(gradient_VD, alpha=float(factor))
            return gradient_ND, None, *others
        gradient_VD = gradient_VD.to(ctx.dtype).mul_(factor)
        if ctx.leaf is None:
            return gradient_ND, gradient_VD, *others
        ctx.leaf.grad = gradient_VD
        return gradient_ND, None, *others


def _slices(count: int, size: int) -> list[slice]:
    """Return the slices of `size` that `count` rows fall into; the last may be shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _group_tokens(weight_VD: Tensor, chunk_tokens: int) -> int:
    """Return of how many tokens, whole chunks, the slopes are held at once for one product with them.

    They take no more memory than the gradient of the weight in fp32 does, so it does not grow with the tokens.
    """
    tokens: int = 4 * weight_VD.shape[1] // weight_VD.element_size()
    return max(1, tokens // chunk_tokens) * chunk_tokens


def _fill_slope(logits_NV: Tensor, taught: Tensor | TopK | None, targets_N: Tensor, recipe: Recipe, slope_NV: Tensor) -> Tensor:
    """Return the summed loss of a chunk, fp64, and write its gradient with respect to the logits into `slope_NV`.

    On a CPU it goes by so few rows that what they need stays in its cache; each row is by itself, so the numbers are the same.
    """
    rows = len(logits_NV)
    if logits_NV.device.type == "cpu":
        rows = max(1, CACHED_BYTES // (logits_NV.shape[1] * torch.finfo(torch.float32).bits // 8))
    total = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
    for few in _slices(len(logits_NV), rows):
        value, slope = _value_and_slope(logits_NV[few], None if taught is None else taught[few], targets_N[few], recipe)
        slope_NV[few] = slope
        total += value
    return total


def _value_and_slope(logits_NV: Tensor, taught: Tensor | TopK | None, targets_N: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a chunk and its gradient with respect to the logits; `taught` are the teacher's, or its best."""
    if taught is not None and recipe.loss == "forward_kl" and recipe.temperature == 1.0:
        if not isinstance(taught, TopK):
            return _forward_kl_value_and_slope(logits_NV, taught, targets_N, recipe.kd_weight)
        if recipe.kd_weight == 1.0:
            return kl_value_and_slope(logits_NV, taught)
    with torch.enable_grad():
        precise_NV = precise(logits_NV).detach().requires_grad_()
        value = token_loss(precise_NV, taught, targets_N, recipe).sum()
        (slope,) = torch.autograd.grad(value, precise_NV)
    return value.detach(), slope


def _forward_kl_value_and_slope(
    logits_NV: Tensor, teacher_NV: Tensor, targets_N: Tensor, kd_weight: float
) -> tuple[Tensor, Tensor]:
    """Return what autograd would, written out for the default loss: two exponentials a piece, the dearest that a CPU computes.

    The gradient of KL(teacher || student) is student - teacher probabilities, that of the cross-entropy student - target.
    """
    student_NV, other_NV = precise(logits_NV), precise(teacher_NV)
    slope_NV, student_total_N1 = probabilities(student_NV)
    probability_NV, teacher_total_N1 = probabilities(other_NV)
    picked_N1 = targets_N.unsqueeze(1)
    hard = (student_total_N1 - student_NV.gather(1, picked_N1)).sum()
    difference_NV = torch.sub(other_NV, student_NV).add_(student_total_N1 - teacher_total_N1)
    value = kd_weight * torch.dot(probability_NV.view(-1), difference_NV.view(-1))
    slope_NV.sub_(probability_NV, alpha=kd_weight)
    if kd_weight < 1.0:
        value = value + (1.0 - kd_weight) * hard
        slope_NV.scatter_add_(1, picked_N1, torch.full_like(picked_N1, kd_weight - 1.0, dtype=slope_NV.dtype))
    return value, slope_NV


def token_loss(logits_NV: Tensor, taught: Tensor | TopK | None, targets_N: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss of each token, shape (N,), nats; `taught` are the teacher's logits (N, V), or its best pieces."""
    if taught is None or recipe.kd_weight == 0.0:
        return functional.cross_entropy(logits_NV, targets_N, reduction="none")
    if isinstance(taught, TopK):
        student_NR = outcomes(functional.log_softmax(logits_NV, dim=-1), taught.ids_NK)
        kd_N = LOSSES[recipe.loss](student_NR, taught.log_shares_NR, recipe.temperature)
    else:
        kd_N = LOSSES[recipe.loss](logits_NV, taught, recipe.temperature)
    if recipe.kd_weight == 1.0:
        return kd_N
    hard_N = functional.cross_entropy(logits_NV, targets_N, reduction="none")
    return recipe.kd_weight * kd_N + (1.0 - recipe.kd_weight) * hard_N
