"""What a family of models is: where each axis lives in its weights and its config, and what a model of a shape costs.

Letters: V vocabulary, D hidden, A channels of all query heads, K of all key heads, F neurons, L layers, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tasks.models.architectures.layout import Layout, Parts, Sites, named
from tasks.models.shapes import Shape

if TYPE_CHECKING:
    from torch import nn

Config = Mapping[str, Any]  # the content of config.json
USUAL_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}
FEWEST_BYTE_PAIRS: Final = 257  # the 256 bytes and the end of text


class Widths(NamedTuple):
    """The channels in a layer."""

    D: int
    A: int
    K: int
    F: int


def biases(_: Config, widths: Widths) -> int:
    """Return the parameters of a layer besides products and norms where every product has a bias."""
    D, A, K, F = widths
    return (A + 2 * K + D) + (F + D)


@dataclass(frozen=True)
class Family:
    """Tables and functions about the models of a family; `config` is the content of config.json, `model` a loaded model.

    Where nothing else is said it is built as the first transformers were: hidden = heads x head size, every product and
    norm with a bias. A classifier that reads the `first` token has a dense pooler below it; of those that read the
    `last`, stock classes classify every token.
    """

    READS: Literal["first", "last"]  # the token that the classifier reads; padding is never it
    layout: Callable[[Config], Layout]  # the axes of every weight
    parts: Parts
    sites: Callable[[Any], Sites]  # where the channels of a model can be seen
    keys: Mapping[str, str]  # axis -> its key in config.json
    tables: tuple[str, ...]  # keys of config.json: how many rows embeddings besides the vocabulary's have, positions first
    byte_pairs: bool  # whether tokenizers are byte-pair encodings, which write every text with 256 bytes
    reserved: Callable[[Config], int] = lambda _: 0  # rows of the table of positions that are none
    one_width: bool = True  # whether stock classes need hidden = heads x head size, so that those two shrink together
    same_heads: bool = False  # whether a weight outside the layers has an entry a head, so that all layers keep the same ones
    gated: bool = False  # whether the feed-forward part has a third product, which gates the neurons
    norm_weights: int = 2  # of a norm, for each channel: its weight and its bias
    extras: Callable[[Config, Widths], int] = biases  # parameters of a layer besides products and norms
    tabled: Callable[[Shape], int] = lambda _: 0  # parameters of tables that are not as wide as the model
    filled: Callable[[Config], Config] = lambda config: config  # with the sizes that a config may leave out
    follows: Callable[[Config, Config], Config] = lambda _config, resized: resized  # what else changes with the sizes
    own_refusal: Callable[[Config, Shape], str | None] = lambda _config, _shape: None
    overruled: Callable[[Config], Iterable[str]] = lambda _: ()  # what config.json says and stock classes do not follow
    first_token_alone: Callable[[Any], None] | None = None  # makes a model's last layer compute no other token

    def shape(self, config: Config) -> dict[str, int]:
        """Return the size along each axis of a config; `heads` are query heads."""
        filled = self.filled(config)
        return {axis: int(filled[key]) for axis, key in self.keys.items()}

    def head_size(self, config: Config) -> int:
        """Return the channels of a head; where the config tells, they do not follow from the width, once it was pruned."""
        given = self.filled(config).get("head_dim")
        return int(given or int(config[self.keys["hidden"]]) // int(config[self.keys["heads"]]))

    def shared_kv(self, config: Config) -> int | None:
        """Return how many heads have keys and values where groups of query heads share them; None where each has its own."""
        heads = int(config[self.keys["heads"]])
        shared = int(self.filled(config).get("num_key_value_heads") or heads)
        return shared if shared < heads else None

    def head_groups(self, config: Config) -> int:
        """Return in how many groups heads share keys and values and shrink evenly; 1 where any head may go."""
        return self.shared_kv(config) or 1

    def positions(self, config: Config) -> int | None:
        """Return how many tokens a model can read at once; None where positions are computed and not looked up in a table."""
        return None if not self.tables else int(config[self.tables[0]]) - self.reserved(config)

    def resized(self, config: Config, new_shape: Shape, layers: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the config with the sizes of `new_shape`; `layers` are those of the parent that stay, else the first ones."""
        sized = dict(self.follows(config, {**config, **{key: new_shape[axis] for axis, key in self.keys.items()}}))
        if kinds := config.get("layer_types"):  # how each layer attends
            kept = range(new_shape["layers"]) if layers is None else layers
            sized["layer_types"] = [kinds[layer] for layer in kept]
        return sized

    def refusal(self, config: Config, new_shape: Shape) -> str | None:
        """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
        return (
            self.own_refusal(config, new_shape)
            or (_unequal_heads(new_shape, self.head_size(config), config["model_type"]) if self.one_width else None)
            or (_too_few_tokens(new_shape, self.shape(config), config["model_type"]) if self.byte_pairs else None)
        )

    def widths(self, config: Config, shape: Shape) -> Widths:
        """Return the channels in a layer of a model of this shape cut from this config."""
        size, heads = self.head_size(config), shape["heads"]
        kv_heads = self.shared_kv(config) or heads  # what is shared stays
        return Widths(shape["hidden"], heads * size, kv_heads * size, shape["ffn"])

    def count_parameters(self, config: Config, new_shape: Shape, num_labels: int) -> dict[str, int]:
        """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
        widths = self.widths(config, new_shape)
        D, A, K, F = widths
        norm = self.norm_weights * D
        layer = 2 * D * (A + K) + self._products * D * F + self.extras(config, widths) + 2 * norm
        head = D * D + D + num_labels * (D + 1) if self.READS == "first" else num_labels * D
        non_embedding = new_shape["layers"] * layer + norm + head
        rows = new_shape["vocabulary"] + sum(int(config[key]) for key in self.tables)
        return {"total": rows * D + self.tabled(new_shape) + non_embedding, "non_embedding": non_embedding}

    def flops_per_example(self, config: Config, tokens: int, classes: int) -> int:
        """Return the FLOPs of the matrix products of one forward pass over T tokens, two for each multiply-add.

        L * (2 T D (2 A + 2 K) [query, output, key, value] + 4 T^2 A [scores, mix] + 4 T D F, gated 6 T D F [feed-forward])
        and the head: 2 D^2 [pooler] + 2 D C, or 2 T D C where stock classes classify every token. Norms, activations and
        softmax are left out, as is usual; masked scores are counted, as dense kernels compute them. Source: Kaplan et al.,
        arXiv:2001.08361, table 1, with attention both ways. Equals what `torch.utils.flop_counter` counts.
        """
        shape = self.shape(config)
        (D, A, K, F), L, T, C = self.widths(config, shape), shape["layers"], tokens, classes
        head = 2 * D * D + 2 * D * C if self.READS == "first" else 2 * T * D * C
        return L * (4 * T * D * (A + K) + 4 * T * T * A + 2 * self._products * T * D * F) + head

    def relations(self, model: Any) -> list[nn.Module]:
        """Return the products whose outputs are query, key and value of the last layer, before any rotation."""
        layers = model.get_submodule(self.layout(model.config.to_dict()).layers)
        return named(layers[-1], self.parts.queries)

    @property
    def _products(self) -> int:
        return 3 if self.gated else 2


def _unequal_heads(new_shape: Shape, size: int, family: str) -> str | None:
    hidden, heads = new_shape["hidden"], new_shape["heads"]
    if hidden == heads * size:
        return None
    return (
        f"hidden = {hidden} and heads = {heads} make heads of {hidden / heads:g} channels; the teacher's have {size}, "
        f"and a stock {family} model loads only hidden = heads x {size}, here {heads * size}"
    )


def _too_few_tokens(new_shape: Shape, shape: Shape, family: str) -> str | None:
    size, before = new_shape["vocabulary"], shape["vocabulary"]
    if size == before or FEWEST_BYTE_PAIRS <= size < before:
        return None
    return (
        f"vocabulary = {size}: those of {family} are byte-pair encodings, and the 256 bytes and the end of text stay; "
        f"allowed: from {FEWEST_BYTE_PAIRS} to {before}"
    )
