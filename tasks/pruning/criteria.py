"""Importance scores: one number for each structure, larger is more important.

A criterion turns statistics of a calibration set into scores. To add one, write a function and an entry of `CRITERIA`.
Letters: L layers, H heads, F feed-forward neurons, D hidden channels, S layer norms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Root of the summed squares, over rows, of the mean |activation| of a row's tokens; fp32.

    `ffn_LF`: input of the second feed-forward product. `attention_LD`: input of the attention output product, heads
    side by side. `hidden_SD`: output of each layer norm. `pooler_D`: output of the pooler.
    """

    ffn_LF: Tensor
    attention_LD: Tensor
    hidden_SD: Tensor
    pooler_D: Tensor


@dataclass(frozen=True)
class Scores:
    """Scores of the structures on each axis, fp32: `ffn_LF`, `heads_LH`, `hidden_D`, `pooler_D`."""

    ffn_LF: Tensor
    heads_LH: Tensor
    hidden_D: Tensor
    pooler_D: Tensor


def activation(statistics: Statistics, num_heads: int) -> Scores:
    """Return Minitron's activation scores: mean over tokens, L2 over rows, summed over layers for the shared width.

    A head's score is the L2 norm over its channels. Source: arXiv:2407.14679, section 2.2.
    """
    layers = statistics.attention_LD.shape[0]
    heads_LHd = statistics.attention_LD.reshape(layers, num_heads, -1)
    return Scores(
        ffn_LF=statistics.ffn_LF,
        heads_LH=heads_LHd.norm(dim=-1),
        hidden_D=statistics.hidden_SD.sum(dim=0),
        pooler_D=statistics.pooler_D,
    )


Criterion = Callable[[Statistics, int], Scores]
CRITERIA: Final[dict[str, Criterion]] = {"activation": activation}


def keep_best(scores: Tensor, count: int) -> list[int]:
    """Return the indices of the `count` largest of 1-D scores in ascending order; ties go to the lower index.

    Raises ValueError when `count` is not in 1..len(scores) or a score is not finite.
    """
    if not 1 <= count <= len(scores):
        raise ValueError(f"cannot keep {count} of {len(scores)} structures")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite; the calibration set or the model is broken")
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[:count].tolist())


class MeanAbsolute:
    """Accumulates, over batches, sum over rows of (mean over a row's tokens of |activation|) squared.

    Padding is left out of the mean. `root()` returns the L2 norm over rows. Source: arXiv:2407.14679, eq. 3-5 with
    aggregation (batch L2, sequence mean), its best in table 11.
    """

    def __init__(self) -> None:
        self._squares: Tensor | None = None

    def add(self, values_BTX: Tensor, mask_BT: Tensor) -> None:
        """Add a batch: values of shape (B, T, X), mask of shape (B, T) with 1 on tokens."""
        weights_BT1 = mask_BT.unsqueeze(-1).float()
        mean_BX = (values_BTX.float().abs() * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
        squares = (mean_BX**2).sum(dim=0).cpu()
        self._squares = squares if self._squares is None else self._squares + squares

    def root(self) -> Tensor:
        """Return the scores, 1-D fp32."""
        assert self._squares is not None, "no batch was added"
        return self._squares.sqrt()
