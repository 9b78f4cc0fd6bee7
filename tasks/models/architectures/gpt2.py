"""GPT-2: where each axis lives. Its Conv1D keeps weights as (inputs, outputs), and query, key and value in one of them."""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.family import Config, Family
from tasks.models.architectures.layout import Axes, Layout, Parts, inside, norm, sites_before
from tasks.models.shapes import Shape

KEYS: Final = {"vocabulary": "vocab_size", "hidden": "n_embd", "heads": "n_head", "ffn": "n_inner", "layers": "n_layer"}
OUTSIDE: Final[dict[str, Axes]] = {
    "transformer.wte.weight": ("vocabulary", "hidden"),
    "transformer.wpe.weight": (None, "hidden"),
    **norm("transformer.ln_f"),
    "score.weight": (None, "hidden"),
    "lm_head.weight": ("vocabulary", "hidden"),
}
PARTS: Final = Parts(
    queries=("attn.c_attn",), mixed="attn.c_proj", neurons=("mlp.c_fc",), summed="mlp.c_proj", norms=("ln_1", "ln_2")
)
LAYOUT: Final = Layout(
    "transformer.h",
    ("transformer.wte", "transformer.wpe", "transformer.drop"),
    OUTSIDE,
    {name: axes[::-1] for name, axes in inside(PARTS, ("qkv",)).items()},
)


def _refusal(config: Config, new_shape: Shape) -> str | None:
    if config.get("add_cross_attention"):
        return "a GPT-2 with cross-attention is not supported; the teacher must be a plain decoder"
    if config.get("scale_attn_by_inverse_layer_idx") and new_shape["layers"] != config["n_layer"]:
        return (
            f"layers = {new_shape['layers']}: the teacher scales attention by the layer's number "
            f"(scale_attn_by_inverse_layer_idx), so layers cannot be dropped; allowed: {config['n_layer']}"
        )
    return None


FAMILY: Final = Family(
    READS="last",
    keys=KEYS,
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_before(model.transformer.h, PARTS, model.transformer.ln_f, model),
    tables=("n_positions",),
    byte_pairs=True,
    # `n_inner: null` means four times the width
    filled=lambda config: {**config, "n_inner": config.get("n_inner") or 4 * int(config["n_embd"])},
    own_refusal=_refusal,
)
