"""Which dimension of which weight lies on which axis: a table for each family.

Names of dimensions: `vocabulary`, `hidden`, `heads` (the channels of the heads, side by side), `qkv` (query, key and value
channels one after the other in one weight), `ffn`, `pooler`; None is never cut.

Where the channels of a model can be seen while it runs.

Shapes that stock classes of several families cannot hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

Axes = tuple[str | None, ...]  # one entry for each dimension of a weight
FUSED: Final = 3  # query, key and value


@dataclass(frozen=True)
class Layout:
    """The weights of a family of models.

    `layers` is the name of the list of layers, `embeddings` those of the modules below it; `outside` gives the axes of
    weights by full name, `inside` those of a layer's weights by the name within the layer.
    """

    layers: str
    embeddings: tuple[str, ...]
    outside: Mapping[str, Axes]
    inside: Mapping[str, Axes]

    def place(self, name: str) -> tuple[int | None, Axes]:
        """Return the layer of a weight, None outside the layers, and its axes; KeyError when the family has no such."""
        if name.startswith(f"{self.layers}."):
            number, _, rest = name.removeprefix(f"{self.layers}.").partition(".")
            if rest in self.inside:
                return int(number), self.inside[rest]
        elif name in self.outside:
            return None, self.outside[name]
        raise KeyError(f"this family has no weight {name!r}; the checkpoint is of another architecture")

    def renumbered(self, name: str, layer: int) -> str:
        """Return the name of a layer's weight in another layer."""
        rest = name.removeprefix(f"{self.layers}.").partition(".")[2]
        return f"{self.layers}.{layer}.{rest}"


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


FEWEST_TOKENS: Final = 257


def unequal_heads(new_shape: Mapping[str, int], size: int, family: str) -> str | None:
    """Return the refusal of a family whose width is that of its heads together, None when the shape is so."""
    hidden, heads = new_shape["hidden"], new_shape["heads"]
    if hidden == heads * size:
        return None
    return (
        f"hidden = {hidden} and heads = {heads} make heads of {hidden / heads:g} channels; the teacher's have {size}, "
        f"and a stock {family} model loads only hidden = heads x {size}, here {heads * size}"
    )


def too_few_tokens(new_shape: Mapping[str, int], shape: Mapping[str, int], family: str) -> str | None:
    """Return the refusal of a family whose tokenizers are byte-pair encodings, which write every text with 256 bytes."""
    if new_shape["vocabulary"] in (shape["vocabulary"], *range(FEWEST_TOKENS, shape["vocabulary"])):
        return None
    return (
        f"vocabulary = {new_shape['vocabulary']}: those of {family} are byte-pair encodings, and the 256 bytes and the end "
        f"of text stay; allowed: from {FEWEST_TOKENS} to {shape['vocabulary']}"
    )
