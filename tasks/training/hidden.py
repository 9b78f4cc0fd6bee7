"""What a student's layers hold of a row, against what the teacher's hold, and how the tokens of a row relate in both.

Token by token states cannot be compared in general: a pruned vocabulary cuts words into other pieces. A row as a whole can:
of each layer the state of the token that the classifier reads, and the mean over the row's tokens. A relation is which other
tokens a token's query, key or value resembles.

Letters: B rows, T tokens, D channels of the student, E channels of the teacher, L pairs of layers, K = 2 kinds of states,
X channels of all heads, R relation heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS: Final = ("read", "mean")
RIDGE: Final = 1e-6  # of the mean variance of a channel: enough where channels repeat each other
SMALLEST_DEVIATION: Final = 1e-3  # of a teacher's channel
SMALLEST: Final = 1e-3  # an extra loss below it has taught what it can, and its dynamic weight grows no more


def layer_pairs(student_layers: int, teacher_layers: int, layers: str) -> list[tuple[int, int]]:
    """Return pairs (student's layer, teacher's layer), both counted from 1; the last always goes with the last.

    `last`: that pair alone. `uniform`: each layer of the student, spread evenly over the teacher's. Source: Jiao et al.,
    arXiv:1909.10351, section 4 (uniform mapping).
    """
    if layers == "last":
        return [(student_layers, teacher_layers)]
    half = student_layers // 2
    return [(i, max(1, (i * teacher_layers + half) // student_layers)) for i in range(1, student_layers + 1)]


def row_states(states_BTD: Tensor, mask_BT: Tensor, reads: str) -> Tensor:
    """Return (B, K, D), fp32: the state of the token read, the `first` or the `last` of the row, and the mean of all."""
    weights_BT1 = mask_BT.unsqueeze(-1).float()
    states_BTD = states_BTD.float()
    mean_BD = (states_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    place_B = mask_BT.sum(dim=1).long() - 1 if reads == "last" else torch.zeros_like(mask_BT[:, 0]).long()
    read_BD = states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), place_B]
    return torch.stack([read_BD, mean_BD], dim=1)


def mse(projected_BLKE: Tensor, teacher_BLKE: Tensor) -> Tensor:
    """Return the mean squared difference of each row, shape (B,), over layers, kinds and channels; >= 0, zero if equal.

    Of standardised states the unit is the variance of a channel: 1 is what a constant guess of the mean gets.
    """
    return ((projected_BLKE - teacher_BLKE) ** 2).mean(dim=(1, 2, 3))


def cosine(projected_BLKE: Tensor, teacher_BLKE: Tensor) -> Tensor:
    """Return 1 - cosine similarity of each row, shape (B,), mean over layers and kinds; 0..2, zero if equal, no unit.

    Source: Sanh et al., arXiv:1910.01108, section 3.
    """
    return 1.0 - functional.cosine_similarity(projected_BLKE, teacher_BLKE, dim=-1).mean(dim=(1, 2))


HIDDEN_LOSSES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {"cosine": cosine, "mse": mse}


class Projection(nn.Module):  # type: ignore[misc]
    """An affine map of the student's states into the teacher's, one a layer and kind; thrown away after training."""

    def __init__(self, weight_LKED: Tensor, bias_LKE: Tensor) -> None:
        super().__init__()
        self.weight_LKED = nn.Parameter(weight_LKED)
        self.bias_LKE = nn.Parameter(bias_LKE)

    def forward(self, states_BLKD: Tensor) -> Tensor:
        """Return (B, L, K, E)."""
        return torch.einsum("blkd,lked->blke", states_BLKD, self.weight_LKED) + self.bias_LKE


def fit_projection(student_BLKD: Tensor, teacher_BLKE: Tensor) -> Projection:
    """Return the map that brings the student's states nearest to the teacher's, by least squares with a small ridge.

    Of a student that equals its teacher it is the identity. It needs no record of which channels were kept, round by
    round, and fits a student whose channels have drifted, or never came from the teacher.
    """
    student, teacher = (states.double().movedim(0, 2) for states in (student_BLKD, teacher_BLKE))  # (L, K, B, .)
    student_mean, teacher_mean = student.mean(dim=2, keepdim=True), teacher.mean(dim=2, keepdim=True)
    centred = student - student_mean
    gram = centred.mT @ centred  # (L, K, D, D)
    size = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None].clamp(min=1e-12)
    ridge = RIDGE * size * torch.eye(gram.shape[-1], dtype=gram.dtype)
    weight = torch.linalg.solve(gram + ridge, centred.mT @ (teacher - teacher_mean)).mT  # (L, K, E, D)
    bias = (teacher_mean - student_mean @ weight.mT).squeeze(2)
    return Projection(weight.float().contiguous(), bias.float().contiguous())


@dataclass(frozen=True)
class StateMatch:
    """Compares a student's states, projected, with the standardised ones of its teacher."""

    loss: str
    mean_LKE: Tensor
    deviation_LKE: Tensor
    projection: Projection

    def __call__(self, student_BLKD: Tensor, teacher_BLKE: Tensor) -> Tensor:
        """Return the loss of each row, shape (B,); see `HIDDEN_LOSSES`."""
        wanted_BLKE = (teacher_BLKE - self.mean_LKE) / self.deviation_LKE
        return HIDDEN_LOSSES[self.loss](self.projection(student_BLKD), wanted_BLKE)


def fit_match(loss: str, student_BLKD: Tensor, teacher_BLKE: Tensor, device: torch.device) -> StateMatch:
    """Return the comparison whose projection and standard are those of a sample, on a device."""
    mean_LKE = teacher_BLKE.mean(dim=0)
    deviation_LKE = teacher_BLKE.std(dim=0, correction=0).clamp(min=SMALLEST_DEVIATION)
    projection = fit_projection(student_BLKD, (teacher_BLKE - mean_LKE) / deviation_LKE)
    return StateMatch(loss, mean_LKE.to(device), deviation_LKE.to(device), projection.to(device))


def fixed_weight(weight: float | str) -> float | None:
    """Return the number that params give, None for `dynamic`, as `weighed` takes it."""
    return None if weight == "dynamic" else float(weight)


def weighed(main: Tensor, extra: Tensor, weight: float | None, mean: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor:
    """Return weight * extra, a scalar; with None the weight is main / extra, so that both count the same.

    That ratio is a number, not a part of the graph, and new at each step; below `SMALLEST` of the extra loss it grows no
    more. `mean` gives a loss over the whole batch, where main and extra are of a share of it, without gradient.
    Source: arXiv:2407.14679, section 3.2.
    """
    if weight is not None:
        return weight * extra
    return (mean(main) / mean(extra).clamp(min=SMALLEST)) * extra


def relation_kl(student_BTX: Tensor, teacher_BTX: Tensor, mask_BT: Tensor, relation_heads: int) -> Tensor:
    """Return KL(teacher || student) of the relations of each row, shape (B,), nats; >= 0, zero when the two agree.

    The channels are cut into `relation_heads` equal parts of d channels, whatever heads the model has; a relation is
    softmax(A A^T / sqrt(d)) over the row's tokens. Mean over the row's tokens and the relation heads; padding is left
    out. Source: Wang et al., MiniLMv2, arXiv:2012.15828, eq. 5-8.
    """
    student_BRTT, teacher_BRTT = (_log_relations(x, mask_BT, relation_heads) for x in (student_BTX, teacher_BTX))
    terms_BRTT = teacher_BRTT.exp() * (teacher_BRTT - student_BRTT)
    kl_BRT = terms_BRTT.masked_fill(~mask_BT.bool()[:, None, None, :], 0.0).sum(dim=-1)
    tokens_BT = mask_BT.to(kl_BRT.dtype)
    return (kl_BRT.mean(dim=1) * tokens_BT).sum(dim=1) / tokens_BT.sum(dim=1)


def _log_relations(values_BTX: Tensor, mask_BT: Tensor, relation_heads: int) -> Tensor:
    """Return the log relations (B, R, T, T), fp32, or fp64 where the values are; padding gets next to nothing."""
    precise = values_BTX if values_BTX.dtype == torch.float64 else values_BTX.float()
    rows, tokens, channels = precise.shape
    parts_BRTX = precise.reshape(rows, tokens, relation_heads, channels // relation_heads).transpose(1, 2)
    scores_BRTT = parts_BRTX @ parts_BRTX.mT / math.sqrt(channels // relation_heads)
    hidden_BRTT = ~mask_BT.bool()[:, None, None, :]
    return scores_BRTT.masked_fill(hidden_BRTT, torch.finfo(scores_BRTT.dtype).min).log_softmax(dim=-1)
