"""Sums over weights, and sums over calibration rows. Letters: B rows of a batch, T tokens, X channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tasks.models.architectures.layout import FUSED, Axes, Layout
from tasks.pruning.criteria import Scores


class Squares(ABC):
    """Accumulates squares over batches; `root()` returns the root of their sum for each channel."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    @abstractmethod
    def squares(self, values_BTX: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the sum of a batch's squares, (X,)."""

    def add(self, values_BTX: Tensor, mask_BT: Tensor) -> None:
        """Add a batch: values of shape (B, T, X), mask of shape (B, T) with 1 on tokens."""
        squares_X = self.squares(values_BTX, mask_BT).cpu()
        self._sum = squares_X if self._sum is None else self._sum + squares_X

    def root(self) -> Tensor:
        """Return the roots, 1-D fp32."""
        assert self._sum is not None, "no batch was added"
        return self._sum.sqrt().float()


class MeanAbsolute(Squares):
    """The L2 norm over rows of the mean over a row's tokens of |activation|; padding is left out of the mean.

    Source: arXiv:2407.14679, eq. 3-5 with aggregation (batch L2, sequence mean), its best in table 11.
    """

    def squares(self, values_BTX: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the sum over rows of the squared means."""
        weights_BT1 = mask_BT.unsqueeze(-1).float()
        mean_BX = (values_BTX.float().abs() * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
        return (mean_BX**2).sum(dim=0)


class TokenNorm(Squares):
    """The L2 norm over all tokens, the ||X_j|| of Wanda; padding is left out. Source: arXiv:2306.11695, eq. 1."""

    def squares(self, values_BTX: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the sum over tokens of the squared activations, fp64."""
        return ((values_BTX.double() ** 2) * mask_BT.unsqueeze(-1)).sum(dim=(0, 1))


class MaskGradient:
    """Accumulates, over batches, sum over rows of |d loss of the row / d mask|, the mask being 1 on every structure.

    A mask multiplies activations a, so its gradient is the sum of gradient x activation over the tokens and over the
    channels that it covers. `mean()` returns the mean over rows, in nats. Source: Michel et al., arXiv:1905.10650, eq. 2.
    """

    def __init__(self, structures: int | None = None) -> None:
        """Count `structures` of neighbouring channels, None for each channel its own."""
        self._structures, self._rows = structures, 0
        self._sum: Tensor | None = None

    def add(self, *pairs: tuple[Tensor, Tensor]) -> None:
        """Add a batch: activations and the gradients of the summed loss, (B, T, X); several where the mask has several."""
        gradient_BX = sum(((a.double() * g.double()).sum(dim=1) for a, g in pairs), torch.zeros(()).double())
        if self._structures is not None:
            gradient_BX = gradient_BX.reshape(len(gradient_BX), self._structures, -1).sum(dim=-1)
        total = gradient_BX.abs().sum(dim=0).cpu()
        self._sum = total if self._sum is None else self._sum + total
        self._rows += len(gradient_BX)

    def mean(self) -> Tensor:
        """Return the scores, 1-D fp32."""
        assert self._sum is not None, "no batch was added"
        return (self._sum / self._rows).float()


def weight_sums(weights: Mapping[str, Tensor], layout: Layout, num_heads: int, power: int) -> Scores:
    """Return for each structure the sum of |w|**power over all weights that go when it goes, biases included; fp32.

    The embeddings count for the hidden width, and a weight that has an entry a head outside the layers for the heads of the
    first layer, which always stays. Summed in fp64, so that the order of the weights does not matter.
    """
    sums: dict[tuple[str, int], Tensor] = {}
    for name, weight in weights.items():
        layer, axes = layout.place(name)
        for axis, values in _sums_along(weight.double().abs() ** power, axes):
            key = (axis, layer if layer is not None and axis != "hidden" else 0)
            sums[key] = sums[key] + values if key in sums else values
    layers = sorted(layer for axis, layer in sums if axis == "ffn")
    heads_LH = torch.stack([sums["heads", i].reshape(num_heads, -1).sum(dim=1) for i in layers])
    if ("each_head", 0) in sums:
        heads_LH[0] += sums["each_head", 0]
    return Scores(
        ffn_LF=torch.stack([sums["ffn", layer] for layer in layers]).float(),
        heads_LH=heads_LH.float(),
        hidden_D=sums["hidden", 0].float(),
        pooler_D=sums.get(("pooler", 0), torch.zeros(0)).float(),
    )


def _sums_along(values: Tensor, axes: Axes) -> Iterator[tuple[str, Tensor]]:
    """Yield for each dimension that may be cut its axis and the sums over all other dimensions."""
    for dimension, axis in enumerate(axes):
        others = [other for other in range(values.ndim) if other != dimension]
        total = values.sum(dim=others) if others else values
        if axis == "qkv":
            yield "heads", total.reshape(FUSED, -1).sum(dim=0)
        elif axis is not None and axis != "vocabulary":
            yield axis, total
