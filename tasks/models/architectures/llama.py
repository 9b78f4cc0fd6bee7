"""Llama and those built like it: where each axis lives. RMS norms, rotary positions, gated feed-forward, grouped queries.

Qwen2 has biases on query, key and value; Qwen3 a norm over the channels of a head, the same for all heads.

Where groups of query heads share keys and values, these stay and each group loses the same number of query heads;
where every head has its own, heads go with them. Rotary positions pair channels of a head, so heads are never cut inside.
"""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.family import USUAL_KEYS, Config, Family, Widths
from tasks.models.architectures.layout import Axes, Layout, Parts, inside, sites_before
from tasks.models.shapes import Shape

OUTSIDE: Final[dict[str, Axes]] = {
    "model.embed_tokens.weight": ("vocabulary", "hidden"),
    "model.norm.weight": ("hidden",),
    "score.weight": (None, "hidden"),
    "lm_head.weight": ("vocabulary", "hidden"),
}
LEFT_OUT: Final = {  # model_type -> what its stock class takes for a key that config.json leaves out; else as many as heads
    "mistral": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
}
PARTS: Final = Parts(
    queries=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    mixed="self_attn.o_proj",
    neurons=("mlp.gate_proj", "mlp.up_proj"),
    summed="mlp.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
)


def _filled(config: Config) -> Config:
    left_out = LEFT_OUT.get(config["model_type"], {})
    return config if left_out.keys() <= config.keys() else {**left_out, **config}  # asked for every shape of a search


def _layout(config: Config) -> Layout:
    """Return the axes of every weight; shared keys and values lie on none."""
    kv = None if FAMILY.shared_kv(config) else "heads"
    norms: dict[str, Axes] = {f"self_attn.{part}_norm.weight": (None,) for part in "qk"}
    return Layout("model.layers", ("model.embed_tokens",), OUTSIDE, inside(PARTS, ("heads", kv, kv)) | norms)


def _follows(config: Config, resized: Config) -> Config:
    """Return a resized config that also says what a smaller width or number of heads and layers no longer tells."""
    return {
        **resized,
        "num_key_value_heads": FAMILY.shared_kv(config) or resized["num_attention_heads"],
        "head_dim": FAMILY.head_size(config),
    }


def _refusal(config: Config, new_shape: Shape) -> str | None:
    groups, heads = FAMILY.head_groups(config), new_shape["heads"]
    if heads % groups:
        return (
            f"heads = {heads}: the teacher's query heads share {groups} groups of keys and values, which stay, and each "
            f"must keep the same number; allowed: multiples of {groups}"
        )
    return None


def _extras(config: Config, widths: Widths) -> int:
    """Return the parameters of a layer besides its matrix products and the norms of its parts."""
    D, A, K, F = widths
    feed_forward = 2 * F + D if config.get("mlp_bias") else 0
    if config["model_type"] == "qwen2":
        return feed_forward + A + 2 * K
    norms = 2 * FAMILY.head_size(config) if config["model_type"] == "qwen3" else 0
    return feed_forward + norms + (A + 2 * K + D if config.get("attention_bias") else 0)


FAMILY: Final = Family(
    READS="last",
    keys=USUAL_KEYS,
    layout=_layout,
    parts=PARTS,
    sites=lambda model: sites_before(model.model.layers, PARTS, model.model.norm, model),
    tables=(),
    byte_pairs=True,
    one_width=False,
    gated=True,
    norm_weights=1,
    extras=_extras,
    filled=_filled,
    follows=_follows,
    own_refusal=_refusal,
)
