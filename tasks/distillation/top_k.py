"""What a teacher holds most likely at each place, and the loss of a student that knows no more of it.

The K best pieces keep their probabilities and all others are one outcome, "the rest". A divergence over these K + 1 outcomes is
at most the one over the whole vocabulary, and zero when student and teacher agree.
Letters: N places, V pieces of the vocabulary, K pieces kept, R = K + 1 outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-30  # of a share before its logarithm: the rest of a sure student may be too small for fp32


@dataclass(frozen=True)
class TopK:
    """The pieces (N, K), int64, and the log probabilities (N, R) of each and of the rest, nats, at temperature 1."""

    ids_NK: Tensor
    log_shares_NR: Tensor

    def __getitem__(self, places: slice) -> TopK:
        """Return some of the places."""
        return TopK(self.ids_NK[places], self.log_shares_NR[places])


def best(logits_NV: Tensor, k: int) -> TopK:
    """Return the k most likely pieces of logits and the rest, fp32 (fp64 where the logits are)."""
    log_NV = torch.log_softmax(_precise(logits_NV), dim=-1)
    ids_NK = log_NV.topk(k, dim=-1).indices
    return TopK(ids_NK, outcomes(log_NV, ids_NK))


def outcomes(log_NV: Tensor, ids_NK: Tensor) -> Tensor:
    """Return the log probabilities (N, R) of the pieces named and, last, of all others together."""
    others_NV = log_NV.scatter(1, ids_NK, float("-inf"))
    rest_N1 = others_NV.logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_NV.gather(1, ids_NK), rest_N1], dim=-1)


def kl_value_and_slope(logits_NV: Tensor, told: TopK) -> tuple[Tensor, Tensor]:
    """Return the summed KL(teacher || student) over the outcomes, nats, and its gradient with respect to the logits.

    The gradient at a kept piece is student - teacher. Of the rest, the teacher's share r is laid on the student's own
    pieces as the student does, of whom they have R together: q - r q / R. With r = R nothing pulls at them.
    """
    log_NV = torch.log_softmax(_precise(logits_NV), dim=-1)
    picked_NK = log_NV.gather(1, told.ids_NK)
    slope_NV = log_NV.exp_().scatter_(1, told.ids_NK, 0.0)
    rest_N = slope_NV.sum(dim=-1).clamp_(min=SMALLEST)
    shares_NR = told.log_shares_NR.exp()
    kept_NK, left_N = shares_NR[:, :-1], shares_NR[:, -1]
    value = (kept_NK * (told.log_shares_NR[:, :-1] - picked_NK)).sum()
    value = value + torch.special.xlogy(left_N, left_N / rest_N).sum()
    slope_NV.mul_(((rest_N - left_N) / rest_N).unsqueeze(1))
    slope_NV.scatter_(1, told.ids_NK, picked_NK.exp() - kept_NK)
    return value, slope_NV


def _precise(logits_NV: Tensor) -> Tensor:
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
