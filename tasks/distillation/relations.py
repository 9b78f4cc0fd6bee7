"""Relations between the tokens of a row: which other tokens a token's query, key or value resembles.

Letters: B rows, T tokens, X channels of all heads, R relation heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
