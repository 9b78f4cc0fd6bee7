"""Distillation losses. Every loss is a mean over rows, in nats, and zero when student and teacher agree.

Letters: B rows, C classes. To add one, write a function and an entry of `LOSSES`.
"""

from __future__ import annotations

import math
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
    log_student_BC, log_teacher_BC = _softened(student_BC, temperature), _softened(teacher_BC, temperature)
    kl_B = (log_teacher_BC.exp() * (log_teacher_BC - log_student_BC)).sum(dim=-1)
    return kl_B * temperature**2


def reverse_kl(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return temperature**2 * KL(student || teacher) of each row, shape (B,), nats; >= 0, zero when the two agree.

    It forgives the student classes it leaves out and punishes those it makes up. Source: Gu et al., arXiv:2306.08543.
    """
    return forward_kl(teacher_BC, student_BC, temperature)


def jensen_shannon(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return temperature**2 * JS(teacher, student) of each row, shape (B,), nats; zero when the two agree.

    JS = (KL(teacher || mean) + KL(student || mean)) / 2 is symmetric and at most ln 2. Near agreement it is a quarter of
    forward_kl, and so are its gradients. Source: Agarwal et al., arXiv:2306.13649, eq. 1 with beta = 1/2.
    """
    log_student_BC, log_teacher_BC = _softened(student_BC, temperature), _softened(teacher_BC, temperature)
    difference_BC = log_student_BC - log_teacher_BC
    # log(teacher / mean) = ln 2 - softplus(log student - log teacher): exact where the two agree
    of_teacher_BC = log_teacher_BC.exp() * (math.log(2.0) - functional.softplus(difference_BC))
    of_student_BC = log_student_BC.exp() * (math.log(2.0) - functional.softplus(-difference_BC))
    return 0.5 * (of_teacher_BC + of_student_BC).sum(dim=-1) * temperature**2


def _softened(logits_BC: Tensor, temperature: float) -> Tensor:
    """Return the log probabilities of the softened logits; fp32, or fp64 where the logits are."""
    precise_BC = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    return functional.log_softmax(precise_BC / temperature, dim=-1)


Loss = Callable[[Tensor, Tensor, float], Tensor]
LOSSES: Final[dict[str, Loss]] = {"forward_kl": forward_kl, "jensen_shannon": jensen_shannon, "reverse_kl": reverse_kl}


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
