"""Distillation losses. Every loss is a mean over rows, in nats, and zero when student and teacher agree.

Letters: B rows, C classes. To add one, write a function and an entry of `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional


def forward_kl(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return temperature**2 * KL(teacher || student) of each row, shape (B,), nats; >= 0, zero when the two agree.

    Both distributions are softened by the temperature; its square keeps the size of the gradients independent of it.
    Source: Hinton et al., arXiv:1503.02531, section 2.
    """
    log_student_BC = functional.log_softmax(student_BC.float() / temperature, dim=-1)
    log_teacher_BC = functional.log_softmax(teacher_BC.float() / temperature, dim=-1)
    kl_B = (log_teacher_BC.exp() * (log_teacher_BC - log_student_BC)).sum(dim=-1)
    return kl_B * temperature**2


Loss = Callable[[Tensor, Tensor, float], Tensor]
LOSSES: Final[dict[str, Loss]] = {"forward_kl": forward_kl}


def distillation_loss(
    student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor, *, loss: str, temperature: float, kd_weight: float
) -> Tensor:
    """Return the mean over rows of the training loss, a scalar in nats.

    Rows with a label mix: kd_weight * loss + (1 - kd_weight) * cross-entropy. Rows without one (label -1): loss alone.
    """
    kd_B = LOSSES[loss](student_BC, teacher_BC, temperature)
    labelled_B = labels_B >= 0
    hard_B = functional.cross_entropy(student_BC.float(), labels_B.clamp(min=0), reduction="none")
    mixed_B = kd_weight * kd_B + (1.0 - kd_weight) * hard_B
    return torch.where(labelled_B, mixed_B, kd_B).mean()
