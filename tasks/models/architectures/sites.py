"""Where the channels of a model can be seen while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Sites:
    """The modules that read or write the channels of each axis.

    `ffn`, `attention`: for each layer the product that reads the neurons, and the one that reads the heads.
    `hidden`: each layer norm with the products that read its output. `pooler`: the classifier that reads the pooler's
    channels; None in families whose classifier reads the hidden channels themselves.
    """

    ffn: list[nn.Module]
    attention: list[nn.Module]
    hidden: list[tuple[nn.Module, list[nn.Module]]]
    pooler: nn.Module | None


def output_layer(model: Any) -> nn.Module:
    """Return what reads the last hidden states of a decoder: the classifier, or the head of a language model."""
    layer: nn.Module = model.score if hasattr(model, "score") else model.lm_head
    return layer
