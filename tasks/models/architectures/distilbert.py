"""DistilBERT: where each axis lives. As BERT, without token types; a layer of its own before the classifier is the pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from tasks.models.architectures.layout import Axes, Layout, Sites, unequal_heads

READS: Final = "first"  # the token that the classifier reads
CONFIG_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "dim",
    "heads": "n_heads",
    "ffn": "hidden_dim",
    "layers": "n_layers",
}
OUTSIDE: Final[dict[str, Axes]] = {
    "distilbert.embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
    "distilbert.embeddings.position_embeddings.weight": (None, "hidden"),
    "distilbert.embeddings.LayerNorm.weight": ("hidden",),
    "distilbert.embeddings.LayerNorm.bias": ("hidden",),
    "pre_classifier.weight": ("pooler", "hidden"),
    "pre_classifier.bias": ("pooler",),
    "classifier.weight": (None, "pooler"),
    "classifier.bias": (None,),
}
INSIDE: Final[dict[str, Axes]] = {
    **{f"attention.{part}_lin.weight": ("heads", "hidden") for part in "qkv"},
    **{f"attention.{part}_lin.bias": ("heads",) for part in "qkv"},
    "attention.out_lin.weight": ("hidden", "heads"),
    "attention.out_lin.bias": ("hidden",),
    "ffn.lin1.weight": ("ffn", "hidden"),
    "ffn.lin1.bias": ("ffn",),
    "ffn.lin2.weight": ("hidden", "ffn"),
    "ffn.lin2.bias": ("hidden",),
    **{f"{norm}.{kind}": ("hidden",) for norm in ("sa_layer_norm", "output_layer_norm") for kind in ("weight", "bias")},
}


def layout(config: Mapping[str, Any]) -> Layout:  # noqa: ARG001 - the same for every DistilBERT
    """Return the axes of every weight."""
    return Layout("distilbert.transformer.layer", ("distilbert.embeddings",), OUTSIDE, INSIDE)


def shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size along each axis of a config."""
    return {axis: int(config[key]) for axis, key in CONFIG_KEYS.items()}


def head_size(config: Mapping[str, Any]) -> int:
    """Return the channels of a head."""
    return int(config["dim"]) // int(config["n_heads"])


def head_groups(config: Mapping[str, Any]) -> int:  # noqa: ARG001 - every head has keys and values of its own
    """Return in how many groups heads share keys and values and shrink evenly; 1 where any head may go."""
    return 1


def resized(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> dict[str, Any]:
    """Return the config with the sizes of `new_shape`."""
    return {**config, **{key: new_shape[axis] for axis, key in CONFIG_KEYS.items()}}


def refusal(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> str | None:
    """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
    return unequal_heads(new_shape, head_size(config), "distilbert")


def count_parameters(config: Mapping[str, Any], new_shape: Mapping[str, int], num_labels: int) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
    V, D, F, L = (new_shape[axis] for axis in ("vocabulary", "hidden", "ffn", "layers"))
    embeddings = (V + int(config["max_position_embeddings"])) * D
    attention = 4 * (D * D + D) + 2 * D
    feed_forward = 2 * D * F + F + D + 2 * D
    head = D * D + D + num_labels * (D + 1)
    non_embedding = 2 * D + L * (attention + feed_forward) + head
    return {"total": embeddings + non_embedding, "non_embedding": non_embedding}


def flops_per_example(config: Mapping[str, Any], tokens: int, classes: int) -> int:
    """Return the FLOPs of the matrix products of one forward pass over T tokens, two for each multiply-add; as for BERT.

    L * (8 T D^2 [query, key, value, output] + 4 T^2 D [scores, mix] + 4 T D F [feed-forward]) + 2 D^2 [pre-classifier]
    + 2 D C. Equals what `torch.utils.flop_counter` counts.
    """
    D, F, L = (shape(config)[axis] for axis in ("hidden", "ffn", "layers"))
    T, C = tokens, classes
    return L * (8 * T * D * D + 4 * T * T * D + 4 * T * D * F) + 2 * D * D + 2 * D * C


def sites(model: Any) -> Sites:
    """Return where the channels of a model can be seen; a layer norm's output also feeds the residual stream."""
    layers = list(model.distilbert.transformer.layer)
    queries = [[layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin] for layer in layers]
    hidden = [(model.distilbert.embeddings.LayerNorm, queries[0])]
    for layer, readers in zip(layers, [*queries[1:], [model.pre_classifier]], strict=True):
        hidden.append((layer.sa_layer_norm, [layer.ffn.lin1]))
        hidden.append((layer.output_layer_norm, readers))
    return Sites(
        ffn=[layer.ffn.lin2 for layer in layers],
        attention=[layer.attention.out_lin for layer in layers],
        hidden=hidden,
        pooler=model.classifier,
    )


def relations(model: Any) -> list[nn.Module]:
    """Return the products whose outputs are query, key and value of the last layer."""
    attention = model.distilbert.transformer.layer[-1].attention
    return [attention.q_lin, attention.k_lin, attention.v_lin]
