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
    precise_NV = precise(logits_NV)
    picked_NK, ids_NK = precise_NV.topk(k, dim=-1)
    probability_NV, total_N1 = probabilities(precise_NV)
    rest_N1 = probability_NV.scatter_(1, ids_NK, 0.0).sum(dim=-1, keepdim=True).clamp_(min=SMALLEST)
    return TopK(ids_NK, torch.cat([picked_NK - total_N1, rest_N1.log()], dim=-1))


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
    precise_NV = precise(logits_NV)
    slope_NV, total_N1 = probabilities(precise_NV)
    picked_NK = precise_NV.gather(1, told.ids_NK) - total_N1
    slope_NV.scatter_(1, told.ids_NK, 0.0)
    rest_N = slope_NV.sum(dim=-1).clamp_(min=SMALLEST)
    shares_NR = told.log_shares_NR.exp()
    kept_NK, left_N = shares_NR[:, :-1], shares_NR[:, -1]
    value = (kept_NK * (told.log_shares_NR[:, :-1] - picked_NK)).sum()
    value = value + torch.special.xlogy(left_N, left_N / rest_N).sum()
    slope_NV.mul_(((rest_N - left_N) / rest_N).unsqueeze(1))
    slope_NV.scatter_(1, told.ids_NK, picked_NK.exp() - kept_NK)
    return value, slope_NV


def probabilities(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax (N, V) and the logarithm (N, 1) of the sum of exponentials, which log probabilities lack.

    One exponential a piece. The largest probability is 1 over the sum of exp(logit - largest logit).
    """
    probability_NV = torch.softmax(logits_NV, dim=-1)
    largest_N1 = probability_NV.amax(dim=-1, keepdim=True)
    return probability_NV, logits_NV.amax(dim=-1, keepdim=True) - largest_N1.log()


def precise(logits_NV: Tensor) -> Tensor:
    """Return the logits in fp32, or as they are where that is fp64."""
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
