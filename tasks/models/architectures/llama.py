"""Llama and those built like it: where each axis lives. RMS norms, rotary positions, gated feed-forward, grouped queries.

Qwen2 has biases on query, key and value; Qwen3 a norm over the channels of a head, the same for all heads.

Where groups of query heads share keys and values, these stay and each group loses the same number of query heads;
where every head has its own, heads go with them. Rotary positions pair channels of a head, so heads are never cut inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from tasks.models.architectures.layout import Axes, Layout, Sites, output_layer, too_few_tokens

READS: Final = "last"  # the token that the classifier reads
CONFIG_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "layers": "num_hidden_layers",
}
OUTSIDE: Final[dict[str, Axes]] = {
    "model.embed_tokens.weight": ("vocabulary", "hidden"),
    "model.norm.weight": ("hidden",),
    "score.weight": (None, "hidden"),
    "lm_head.weight": ("vocabulary", "hidden"),
}


def layout(config: Mapping[str, Any]) -> Layout:
    """Return the axes of every weight; shared keys and values lie on none."""
    kv = None if head_groups(config) > 1 else "heads"
    inside: dict[str, Axes] = {
        "input_layernorm.weight": ("hidden",),
        "post_attention_layernorm.weight": ("hidden",),
        "self_attn.q_proj.weight": ("heads", "hidden"),
        "self_attn.q_proj.bias": ("heads",),
        **{f"self_attn.{part}_proj.weight": (kv, "hidden") for part in "kv"},
        **{f"self_attn.{part}_proj.bias": (kv,) for part in "kv"},
        **{f"self_attn.{part}_norm.weight": (None,) for part in "qk"},
        "self_attn.o_proj.weight": ("hidden", "heads"),
        "self_attn.o_proj.bias": ("hidden",),
        **{f"mlp.{part}_proj.weight": ("ffn", "hidden") for part in ("gate", "up")},
        **{f"mlp.{part}_proj.bias": ("ffn",) for part in ("gate", "up")},
        "mlp.down_proj.weight": ("hidden", "ffn"),
        "mlp.down_proj.bias": ("hidden",),
    }
    return Layout("model.layers", ("model.embed_tokens",), OUTSIDE, inside)


def shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size along each axis of a config; `heads` are query heads."""
    return {axis: int(config[key]) for axis, key in CONFIG_KEYS.items()}


def head_size(config: Mapping[str, Any]) -> int:
    """Return the channels of a head, which do not follow from the width once it was pruned."""
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def head_groups(config: Mapping[str, Any]) -> int:
    """Return in how many groups heads share keys and values and shrink evenly; 1 where any head may go."""
    groups = _kv_heads(config)
    return groups if groups < int(config["num_attention_heads"]) else 1


def _kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def _kv_heads_after(config: Mapping[str, Any], heads: int) -> int:
    return _kv_heads(config) if head_groups(config) > 1 else heads


def resized(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> dict[str, Any]:
    """Return the config with the sizes of `new_shape`."""
    return {
        **config,
        **{key: new_shape[axis] for axis, key in CONFIG_KEYS.items()},
        "num_key_value_heads": _kv_heads_after(config, new_shape["heads"]),
        "head_dim": head_size(config),
        **({"layer_types": config["layer_types"][: new_shape["layers"]]} if config.get("layer_types") else {}),
    }


def refusal(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> str | None:
    """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
    groups, heads = head_groups(config), new_shape["heads"]
    if heads % groups:
        return (
            f"heads = {heads}: the teacher's query heads share {groups} groups of keys and values, which stay, and each "
            f"must keep the same number; allowed: multiples of {groups}"
        )
    if len(set(config.get("layer_types") or ())) > 1 and new_shape["layers"] != shape(config)["layers"]:
        return (
            f"layers = {new_shape['layers']}: the teacher's layers attend differently (layer_types), by their number, so "
            f"they cannot be dropped; allowed: {shape(config)['layers']}"
        )
    return too_few_tokens(new_shape, shape(config), str(config["model_type"]))


def count_parameters(config: Mapping[str, Any], new_shape: Mapping[str, int], num_labels: int) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
    V, D, F, L = (new_shape[axis] for axis in ("vocabulary", "hidden", "ffn", "layers"))
    A = new_shape["heads"] * head_size(config)
    K = _kv_heads_after(config, new_shape["heads"]) * head_size(config)
    attention = 2 * D * A + 2 * D * K + _attention_extras(config, A, K, D)
    feed_forward = 3 * D * F + (2 * F + D if config.get("mlp_bias") else 0)
    non_embedding = L * (attention + feed_forward + 2 * D) + D + num_labels * D
    return {"total": V * D + non_embedding, "non_embedding": non_embedding}


def _attention_extras(config: Mapping[str, Any], A: int, K: int, D: int) -> int:
    """Return the parameters of a layer's attention besides its matrix products."""
    if config["model_type"] == "qwen2":
        return A + 2 * K
    norms = 2 * head_size(config) if config["model_type"] == "qwen3" else 0
    return norms + (A + 2 * K + D if config.get("attention_bias") else 0)


def flops_per_example(config: Mapping[str, Any], tokens: int, classes: int) -> int:
    """Return the FLOPs of the matrix products of one forward pass over T tokens, two for each multiply-add.

    With A channels of all query heads and K of all key heads: L * (2 T D (2 A + 2 K) [query, output, key, value]
    + 4 T^2 A [scores, mix] + 6 T D F [feed-forward]) + 2 T D C: the stock class classifies every token and takes the last
    one's answer. Masked scores are counted, as dense kernels compute them. Equals what `torch.utils.flop_counter` counts.
    """
    D, F, L = (shape(config)[axis] for axis in ("hidden", "ffn", "layers"))
    A, K = shape(config)["heads"] * head_size(config), _kv_heads(config) * head_size(config)
    T, C = tokens, classes
    return L * (4 * T * D * (A + K) + 4 * T * T * A + 6 * T * D * F) + 2 * T * D * C


def sites(model: Any) -> Sites:
    """Return where the channels of a model can be seen: an RMS norm stands before each product."""
    layers = list(model.model.layers)
    hidden = []
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        hidden.append((layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]))
        hidden.append((layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]))
    return Sites(
        ffn=[layer.mlp.down_proj for layer in layers],
        attention=[layer.self_attn.o_proj for layer in layers],
        hidden=[*hidden, (model.model.norm, [output_layer(model)])],
        pooler=None,
    )


def relations(model: Any) -> list[nn.Module]:
    """Return the products whose outputs are query, key and value of the last layer, before the rotation."""
    attention = model.model.layers[-1].self_attn
    return [attention.q_proj, attention.k_proj, attention.v_proj]
