"""BERT: where each axis lives. Stock BERT needs hidden = heads x head size, so those two axes shrink together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from tasks.models.architectures.layout import Axes, Layout, Sites, unequal_heads

READS: Final = "first"  # the token that the classifier reads
CONFIG_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}
EMBEDDINGS: Final[dict[str, Axes]] = {
    "word_embeddings.weight": ("vocabulary", "hidden"),
    "position_embeddings.weight": (None, "hidden"),
    "token_type_embeddings.weight": (None, "hidden"),
    "LayerNorm.weight": ("hidden",),
    "LayerNorm.bias": ("hidden",),
}
OUTSIDE: Final[dict[str, Axes]] = {
    **{f"bert.embeddings.{name}": axes for name, axes in EMBEDDINGS.items()},
    "bert.pooler.dense.weight": ("pooler", "hidden"),
    "bert.pooler.dense.bias": ("pooler",),
    "classifier.weight": (None, "pooler"),
    "classifier.bias": (None,),
}
INSIDE: Final[dict[str, Axes]] = {
    **{f"attention.self.{part}.weight": ("heads", "hidden") for part in ("query", "key", "value")},
    **{f"attention.self.{part}.bias": ("heads",) for part in ("query", "key", "value")},
    "attention.output.dense.weight": ("hidden", "heads"),
    "attention.output.dense.bias": ("hidden",),
    "intermediate.dense.weight": ("ffn", "hidden"),
    "intermediate.dense.bias": ("ffn",),
    "output.dense.weight": ("hidden", "ffn"),
    "output.dense.bias": ("hidden",),
    **{
        f"{place}.LayerNorm.{kind}": ("hidden",)
        for place in ("attention.output", "output")
        for kind in ("weight", "bias")
    },
}


def layout(config: Mapping[str, Any]) -> Layout:  # noqa: ARG001 - the same for every BERT
    """Return the axes of every weight."""
    return Layout("bert.encoder.layer", ("bert.embeddings",), OUTSIDE, INSIDE)


def shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size along each axis of a config."""
    return {axis: int(config[key]) for axis, key in CONFIG_KEYS.items()}


def head_size(config: Mapping[str, Any]) -> int:
    """Return the channels of a head."""
    return int(config["hidden_size"]) // int(config["num_attention_heads"])


def head_groups(config: Mapping[str, Any]) -> int:  # noqa: ARG001 - every head has keys and values of its own
    """Return in how many groups heads share keys and values and shrink evenly; 1 where any head may go."""
    return 1


def resized(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> dict[str, Any]:
    """Return the config with the sizes of `new_shape`."""
    return {**config, **{key: new_shape[axis] for axis, key in CONFIG_KEYS.items()}}


def refusal(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> str | None:
    """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
    return unequal_heads(new_shape, head_size(config), "bert")


def count_parameters(config: Mapping[str, Any], new_shape: Mapping[str, int], num_labels: int) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
    V, D, F, L = (new_shape[axis] for axis in ("vocabulary", "hidden", "ffn", "layers"))
    embeddings = (V + int(config["max_position_embeddings"]) + int(config["type_vocab_size"])) * D
    attention = 4 * (D * D + D) + 2 * D
    feed_forward = 2 * D * F + F + D + 2 * D
    head = D * D + D + num_labels * (D + 1)
    non_embedding = 2 * D + L * (attention + feed_forward) + head
    return {"total": embeddings + non_embedding, "non_embedding": non_embedding}


def flops_per_example(config: Mapping[str, Any], tokens: int, classes: int) -> int:
    """Return the FLOPs of the matrix products of one forward pass over T tokens, two for each multiply-add.

    L * (8 T D^2 [query, key, value, output] + 4 T^2 D [scores, mix] + 4 T D F [feed-forward]) + 2 D^2 [pooler] + 2 D C.
    Norms, activations and softmax are left out, as is usual. Source: Kaplan et al., arXiv:2001.08361, table 1, with
    attention both ways instead of causal. Equals what `torch.utils.flop_counter` counts.
    """
    D, F, L = (int(config[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    T, C = tokens, classes
    return L * (8 * T * D * D + 4 * T * T * D + 4 * T * D * F) + 2 * D * D + 2 * D * C


def sites(model: Any) -> Sites:
    """Return where the channels of a model can be seen; a layer norm's output also feeds the residual stream."""
    return encoder_sites(model, model.bert.pooler.dense, model.classifier)


def encoder_sites(model: Any, pooler: nn.Module, reader: nn.Module) -> Sites:
    """Return the sites of BERT's layers and embeddings below a dense `pooler`, which `reader` reads."""
    body = model.base_model
    layers = list(body.encoder.layer)
    queries = [[layer.attention.self.query, layer.attention.self.key, layer.attention.self.value] for layer in layers]
    hidden = [(body.embeddings.LayerNorm, queries[0])]
    for layer, readers in zip(layers, [*queries[1:], [pooler]], strict=True):
        hidden.append((layer.attention.output.LayerNorm, [layer.intermediate.dense]))
        hidden.append((layer.output.LayerNorm, readers))
    return Sites(
        ffn=[layer.output.dense for layer in layers],
        attention=[layer.attention.output.dense for layer in layers],
        hidden=hidden,
        pooler=reader,
    )


def relations(model: Any) -> list[nn.Module]:
    """Return the products whose outputs are query, key and value of the last layer."""
    attention = model.base_model.encoder.layer[-1].attention.self
    return [attention.query, attention.key, attention.value]


def first_token_alone(model: Any) -> None:
    """Make the last layer compute the first token alone, which is all that the classifier reads.

    Its query, its output and its feed-forward part then cost one token instead of T; keys and values still come from all. The
    logits and the gradients are the same to rounding, but the last hidden state is (B, 1, D).
    """
    layer = model.base_model.encoder.layer[-1]
    attention = layer.attention.self

    def forward(hidden_BTD: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        first_B1D = hidden_BTD[:, :1]
        query, key, value = (
            part(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
            for part, states in (
                (attention.query, first_B1D),
                (attention.key, hidden_BTD),
                (attention.value, hidden_BTD),
            )
        )
        scores_BH1T = query @ key.transpose(-1, -2) * attention.scaling
        if attention_mask is not None:
            scores_BH1T = scores_BH1T + attention_mask[:, :, :1]
        shares_BH1T = attention.dropout(torch.softmax(scores_BH1T, dim=-1).to(value.dtype))
        mixed_B1D = (shares_BH1T @ value).transpose(1, 2).flatten(-2)
        result: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed_B1D, first_B1D))
        return result

    layer.forward = forward
