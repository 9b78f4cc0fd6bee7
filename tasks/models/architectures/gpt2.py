"""GPT-2: where each axis lives. Its Conv1D keeps weights as (inputs, outputs), and query, key and value in one of them.

Stock GPT-2 needs hidden = heads x head size, so those two axes shrink together. The classifier reads the last token that
is not padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from tasks.models.architectures.layout import Axes, Layout, Sites, output_layer, too_few_tokens, unequal_heads

READS: Final = "last"  # the token that the classifier reads
CONFIG_KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "n_embd",
    "heads": "n_head",
    "ffn": "n_inner",
    "layers": "n_layer",
}
OUTSIDE: Final[dict[str, Axes]] = {
    "transformer.wte.weight": ("vocabulary", "hidden"),
    "transformer.wpe.weight": (None, "hidden"),
    "transformer.ln_f.weight": ("hidden",),
    "transformer.ln_f.bias": ("hidden",),
    "score.weight": (None, "hidden"),
    "lm_head.weight": ("vocabulary", "hidden"),
}
INSIDE: Final[dict[str, Axes]] = {
    **{f"{norm}.{kind}": ("hidden",) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")},
    "attn.c_attn.weight": ("hidden", "qkv"),
    "attn.c_attn.bias": ("qkv",),
    "attn.c_proj.weight": ("heads", "hidden"),
    "attn.c_proj.bias": ("hidden",),
    "mlp.c_fc.weight": ("hidden", "ffn"),
    "mlp.c_fc.bias": ("ffn",),
    "mlp.c_proj.weight": ("ffn", "hidden"),
    "mlp.c_proj.bias": ("hidden",),
}


def layout(config: Mapping[str, Any]) -> Layout:  # noqa: ARG001 - the same for every GPT-2
    """Return the axes of every weight."""
    return Layout("transformer.h", ("transformer.wte", "transformer.wpe", "transformer.drop"), OUTSIDE, INSIDE)


def shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size along each axis of a config; `n_inner: null` means four times the width."""
    ffn = config.get("n_inner") or 4 * int(config["n_embd"])
    return {axis: int({**config, "n_inner": ffn}[key]) for axis, key in CONFIG_KEYS.items()}


def head_size(config: Mapping[str, Any]) -> int:
    """Return the channels of a head."""
    return int(config["n_embd"]) // int(config["n_head"])


def head_groups(config: Mapping[str, Any]) -> int:  # noqa: ARG001 - every head has keys and values of its own
    """Return in how many groups heads share keys and values and shrink evenly; 1 where any head may go."""
    return 1


def resized(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> dict[str, Any]:
    """Return the config with the sizes of `new_shape`."""
    return {**config, **{key: new_shape[axis] for axis, key in CONFIG_KEYS.items()}}


def refusal(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> str | None:
    """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
    if config.get("add_cross_attention"):
        return "a GPT-2 with cross-attention is not supported; the teacher must be a plain decoder"
    if config.get("scale_attn_by_inverse_layer_idx") and new_shape["layers"] != shape(config)["layers"]:
        return (
            f"layers = {new_shape['layers']}: the teacher scales attention by the layer's number "
            f"(scale_attn_by_inverse_layer_idx), so layers cannot be dropped; allowed: {shape(config)['layers']}"
        )
    return unequal_heads(new_shape, head_size(config), "gpt2") or too_few_tokens(new_shape, shape(config), "gpt2")


def count_parameters(config: Mapping[str, Any], new_shape: Mapping[str, int], num_labels: int) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters of a classifier of this shape, by arithmetic alone."""
    V, D, F, L = (new_shape[axis] for axis in ("vocabulary", "hidden", "ffn", "layers"))
    embeddings = (V + int(config["n_positions"])) * D
    attention = 4 * (D * D + D) + 2 * D
    feed_forward = 2 * D * F + F + D + 2 * D
    non_embedding = L * (attention + feed_forward) + 2 * D + num_labels * D
    return {"total": embeddings + non_embedding, "non_embedding": non_embedding}


def flops_per_example(config: Mapping[str, Any], tokens: int, classes: int) -> int:
    """Return the FLOPs of the matrix products of one forward pass over T tokens, two for each multiply-add.

    L * (8 T D^2 [query, key, value, output] + 4 T^2 D [scores, mix] + 4 T D F [feed-forward]) + 2 T D C: stock GPT-2
    classifies every token and takes the last one's answer. Masked scores are counted, as dense kernels compute them.
    Equals what `torch.utils.flop_counter` counts.
    """
    D, F, L = (shape(config)[axis] for axis in ("hidden", "ffn", "layers"))
    T, C = tokens, classes
    return L * (8 * T * D * D + 4 * T * T * D + 4 * T * D * F) + 2 * T * D * C


def sites(model: Any) -> Sites:
    """Return where the channels of a model can be seen: a layer norm stands before each product."""
    blocks = list(model.transformer.h)
    hidden = []
    for block in blocks:
        hidden += [(block.ln_1, [block.attn.c_attn]), (block.ln_2, [block.mlp.c_fc])]
    return Sites(
        ffn=[block.mlp.c_proj for block in blocks],
        attention=[block.attn.c_proj for block in blocks],
        hidden=[*hidden, (model.transformer.ln_f, [output_layer(model)])],
        pooler=None,
    )


def relations(model: Any) -> list[nn.Module]:
    """Return the product whose output is query, key and value of the last layer, one after the other."""
    return [model.transformer.h[-1].attn.c_attn]
