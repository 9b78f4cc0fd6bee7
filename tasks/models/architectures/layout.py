"""Where the weights and the channels of a family's models are: tables of names, and what can be read off them.

Names of dimensions: `vocabulary`, `hidden`, `heads` (the channels of the heads, side by side), `qkv` (query, key and value
channels one after the other in one weight), `each_head` (one entry a head, for the heads of all layers), `ffn`, `pooler`; None
is never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # what is known of a family without a model needs no torch, whose import takes seconds
    from torch import nn

Axes = tuple[str | None, ...]  # one entry for each dimension of a weight
TABLES: Final = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # the mask of GPT-2, the turns of Llama
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

    @property
    def embedding(self) -> str:
        """The weight whose rows are the tokens."""
        return next(name for name, axes in self.outside.items() if axes[0] == "vocabulary")

    def is_head(self, name: str) -> bool:
        """Return whether a weight belongs to what a classifier has above the body of its family."""
        return name in self.outside and name != "lm_head.weight" and ("pooler" in self.outside[name] or not self._in_body(name))

    def in_layers(self, name: str) -> bool:
        """Return whether what is stored under a name is a weight of a layer; tables in old files are none."""
        return self.full_name(name).startswith(f"{self.layers}.") and not name.endswith(TABLES)

    def full_name(self, name: str) -> str:
        """Return the name of a weight in a model with a head; of a body alone it is stored without the body's name."""
        body = self.layers.partition(".")[0]
        return name if self._in_body(name) or name in self.outside else f"{body}.{name}"

    def _in_body(self, name: str) -> bool:
        return name.startswith(f"{self.layers.partition('.')[0]}.")

    def renumbered(self, name: str, layer: int) -> str:
        """Return the name of a layer's weight in another layer."""
        rest = name.removeprefix(f"{self.layers}.").partition(".")[2]
        return f"{self.layers}.{layer}.{rest}"


@dataclass(frozen=True)
class Parts:
    """The modules of a layer, by their names within it; `norms` is that of the attention, then of the feed-forward part."""

    queries: tuple[str, ...]  # the products that make query, key and value: three, or one that makes them all
    mixed: str  # the product that reads the heads
    neurons: tuple[str, ...]  # the products that make the neurons: one, or two where one gates the other
    summed: str  # the product that reads the neurons
    norms: tuple[str, str]


def product(name: str, output: str | None, read: str | None) -> dict[str, Axes]:
    """Return the axes of the weight and the bias of a matrix product, whether it has one or not."""
    return {f"{name}.weight": (output, read), f"{name}.bias": (output,)}


def norm(name: str) -> dict[str, Axes]:
    """Return the axes of the weight and the bias of a norm over the hidden channels."""
    return {f"{name}.weight": ("hidden",), f"{name}.bias": ("hidden",)}


def inside(parts: Parts, made: Sequence[str | None] = ("heads", "heads", "heads")) -> dict[str, Axes]:
    """Return the axes of every weight of a layer; `made` are those of what each of `parts.queries` makes."""
    axes: dict[str, Axes] = {}
    for query, output in zip(parts.queries, made, strict=True):
        axes |= product(query, output, "hidden")
    for name in parts.neurons:
        axes |= product(name, "ffn", "hidden")
    axes |= product(parts.mixed, "hidden", "heads") | product(parts.summed, "hidden", "ffn")
    return axes | norm(parts.norms[0]) | norm(parts.norms[1])


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


def named(layer: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    """Return the modules of a layer that have these names."""
    return [layer.get_submodule(name) for name in names]


def sites_after(embeddings: Any, layers: Any, parts: Parts, pooler: nn.Module, reader: nn.Module) -> Sites:
    """Return the sites of layers whose norms come last, above normed `embeddings` and below `pooler`, which `reader` reads.

    A norm's output also feeds the residual stream.
    """
    readers = [*(named(layer, parts.queries) for layer in layers), [pooler]]
    hidden = [(embeddings.LayerNorm, readers[0])]
    for layer, above in zip(layers, readers[1:], strict=True):
        attended, output = named(layer, parts.norms)
        hidden += [(attended, named(layer, parts.neurons)), (output, above)]
    return Sites(_each(layers, parts.summed), _each(layers, parts.mixed), hidden, reader)


def sites_before(layers: Any, parts: Parts, last: nn.Module, model: Any) -> Sites:
    """Return the sites of a decoder's layers, whose norms come first; `last` is the norm above them all."""
    hidden = []
    for layer in layers:
        attention, feed_forward = named(layer, parts.norms)
        hidden += [(attention, named(layer, parts.queries)), (feed_forward, named(layer, parts.neurons))]
    output = model.score if hasattr(model, "score") else model.lm_head  # of a classifier, or of a language model
    return Sites(_each(layers, parts.summed), _each(layers, parts.mixed), [*hidden, (last, [output])], None)


def _each(layers: Any, name: str) -> list[nn.Module]:
    return [layer.get_submodule(name) for layer in layers]
