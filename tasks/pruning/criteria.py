"""Importance scores: one number for each structure, larger is more important.

A criterion turns statistics of a model and its calibration set into scores. To add one, write a function and an entry of
`CRITERIA`. Letters: L layers, H heads, A channels of all heads, F feed-forward neurons, D hidden channels, S layer norms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Channels:
    """A number for each channel where it can be seen, fp32.

    `ffn_LF`: input of the second feed-forward product. `attention_LA`: input of the attention output product, heads
    side by side. `hidden_SD`: output of each layer norm. `pooler_D`: output of the pooler; empty where a family has none.
    """

    ffn_LF: Tensor
    attention_LA: Tensor
    hidden_SD: Tensor
    pooler_D: Tensor


@dataclass(frozen=True)
class Scores:
    """Scores of the structures on each axis, fp32; `pooler_D` is empty where a family has no pooler."""

    ffn_LF: Tensor
    heads_LH: Tensor
    hidden_D: Tensor
    pooler_D: Tensor


class Statistics(Protocol):
    """What a criterion may look at; each statistic is collected when it is asked for."""

    @property
    def num_heads(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def mean_absolute(self) -> Channels:
        """Return the L2 norm over rows of the mean |activation| of a row's tokens.

        `pooler_D` is multiplied by the norm of the classifier's weights: a channel matters as far as it is listened to.
        """

    def token_norms(self) -> Channels:
        """Return the L2 norm of the activations over all tokens of all rows."""

    def reader_weights(self) -> Channels:
        """Return for each channel the sum of |weight| over the matrix products that read it there."""

    def mask_gradients(self) -> Scores:
        """Return the mean over rows of |d cross-entropy of the row / d mask of the structure|, nats."""

    def weight_sums(self, power: int) -> Scores:
        """Return the sum of |weight|**power over all weights that go when the structure goes."""


def activation(statistics: Statistics) -> Scores:
    """Return Minitron's activation scores: mean over tokens, L2 over rows, summed over layers for the shared width.

    A head's score is the L2 norm over its channels. Source: arXiv:2407.14679, section 2.2.
    """
    means = statistics.mean_absolute()
    return Scores(
        ffn_LF=means.ffn_LF,
        heads_LH=_by_head(means.attention_LA, statistics.num_heads).norm(dim=-1),
        hidden_D=means.hidden_SD.sum(dim=0),
        pooler_D=means.pooler_D,
    )


def magnitude_l1(statistics: Statistics) -> Scores:
    """Return the L1 norm of all weights of a structure; no data is needed. Source: Li et al., arXiv:1608.08710."""
    return statistics.weight_sums(1)


def magnitude_l2(statistics: Statistics) -> Scores:
    """Return the L2 norm of all weights of a structure; no data is needed."""
    sums = statistics.weight_sums(2)
    return Scores(**{name: values.sqrt() for name, values in vars(sums).items()})


def random(statistics: Statistics) -> Scores:
    """Return uniform numbers in [0, 1) from the seed: the control that every criterion must beat."""
    generator = torch.Generator().manual_seed(statistics.seed)
    like = statistics.weight_sums(1)
    return Scores(**{name: torch.rand(values.shape, generator=generator) for name, values in vars(like).items()})


def taylor(statistics: Statistics) -> Scores:
    """Return the first-order estimate of what a row's loss changes by without the structure, nats, mean over rows.

    The loss is the cross-entropy of the labels. The absolute value is taken row by row, after the sum over all places
    where the structure acts: ups and downs of one row cancel, those of different rows do not. Source: Michel et al.,
    arXiv:1905.10650, eq. 2; Molchanov et al., arXiv:1906.10771.
    """
    return statistics.mask_gradients()


def wanda(statistics: Statistics) -> Scores:
    """Return the sum of Wanda's |weight| x ||input|| over the weights that read a structure.

    Wanda ranks single weights (arXiv:2306.11695, eq. 1); a structure's score is the sum over its columns, as Wanda-sp
    does for neurons and heads (arXiv:2312.11983, section 4.1), and for the width over the readers of every layer norm.
    """
    norms, readers = statistics.token_norms(), statistics.reader_weights()
    return Scores(
        ffn_LF=norms.ffn_LF * readers.ffn_LF,
        heads_LH=_by_head(norms.attention_LA * readers.attention_LA, statistics.num_heads).sum(dim=-1),
        hidden_D=(norms.hidden_SD * readers.hidden_SD).sum(dim=0),
        pooler_D=norms.pooler_D * readers.pooler_D,
    )


def _by_head(values_LA: Tensor, num_heads: int) -> Tensor:
    return values_LA.reshape(values_LA.shape[0], num_heads, -1)


Criterion = Callable[[Statistics], Scores]
CRITERIA: Final[dict[str, Criterion]] = {
    "activation": activation,
    "magnitude_l1": magnitude_l1,
    "magnitude_l2": magnitude_l2,
    "random": random,
    "taylor": taylor,
    "wanda": wanda,
}


def keep_best(scores: Tensor, count: int, groups: int = 1) -> list[int]:
    """Return the indices of the `count` largest of 1-D scores in ascending order; ties go to the lower index.

    With `groups`, the scores are that many runs of equal length and the same number is kept of each. Raises ValueError
    when `count` is not in 1..len(scores), does not divide among the groups, or a score is not finite.
    """
    if not 1 <= count <= len(scores) or count % groups:
        raise ValueError(f"cannot keep {count} of {len(scores)} structures in {groups} groups")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite; the calibration set or the model is broken")
    size = len(scores) // groups
    order = torch.sort(scores.reshape(groups, size), dim=1, descending=True, stable=True).indices
    kept = order[:, : count // groups] + torch.arange(groups).unsqueeze(1) * size
    return sorted(kept.flatten().tolist())
