"""MPNet: BERT's layers, and one table of distances between tokens that adds to what the heads of every layer look at.

Its column i belongs to head i of all layers, so all layers keep the same heads. Positions are counted from the padding id
on. Stock classes write two numbers down that config.json only seems to choose; see `_overruled`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from tasks.models.architectures.family import USUAL_KEYS, Config, Family
from tasks.models.architectures.layout import Layout, Parts, inside, norm, product, sites_after

if TYPE_CHECKING:
    from torch import Tensor

DISTANCES: Final = "mpnet.encoder.relative_attention_bias"
BUCKETS: Final = 32  # rows of that table
PADDING: Final = 1
OUTSIDE: Final = {
    "mpnet.embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
    "mpnet.embeddings.position_embeddings.weight": (None, "hidden"),
    **{f"mpnet.embeddings.{name}": axes for name, axes in norm("LayerNorm").items()},
    f"{DISTANCES}.weight": (None, "each_head"),
    **product("classifier.dense", "pooler", "hidden"),
    **product("classifier.out_proj", None, "pooler"),
}
PARTS: Final = Parts(
    queries=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    mixed="attention.attn.o",
    neurons=("intermediate.dense",),
    summed="output.dense",
    norms=("attention.LayerNorm", "output.LayerNorm"),
)
LAYOUT: Final = Layout("mpnet.encoder.layer", ("mpnet.embeddings", DISTANCES), OUTSIDE, inside(PARTS))


def _overruled(config: Config) -> Iterator[str]:
    """Yield what config.json says and the stock class does not follow, a sentence each."""
    if (pad := config.get("pad_token_id", PADDING)) != PADDING:
        yield f"pad_token_id: {pad!r}: the stock class counts positions from id {PADDING} in any case; allowed: {PADDING}"
    if (rows := config.get("relative_attention_num_buckets", BUCKETS)) != BUCKETS:
        yield f"relative_attention_num_buckets: {rows!r}: the stock class sorts distances into {BUCKETS}; allowed: {BUCKETS}"


def first_token_alone(model: Any) -> None:
    """Make the last layer compute the first token alone; see `bert.first_token_alone`. The layer returns a tuple here."""
    layer = model.base_model.encoder.layer[-1]
    attention = layer.attention.attn

    def forward(hidden_BTD: Tensor, mask: Tensor | None = None, distances_BHTT: Tensor | None = None, **_: Any) -> tuple[Tensor]:
        first_B1D = hidden_BTD[:, :1]
        query, key, value = (
            part(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
            for part, states in ((attention.q, first_B1D), (attention.k, hidden_BTD), (attention.v, hidden_BTD))
        )
        scores_BH1T = query @ key.transpose(-1, -2) / attention.attention_head_size**0.5
        for added in (distances_BHTT, mask):
            if added is not None:
                scores_BH1T = scores_BH1T + added[:, :, :1]
        shares_BH1T = attention.dropout(scores_BH1T.softmax(dim=-1).to(value.dtype))
        mixed_B1D = attention.o((shares_BH1T @ value).transpose(1, 2).flatten(-2))
        attended_B1D = layer.attention.LayerNorm(layer.attention.dropout(mixed_B1D) + first_B1D)
        return (layer.output(layer.intermediate(attended_B1D), attended_B1D),)

    layer.forward = forward


FAMILY: Final = Family(
    READS="first",
    keys=USUAL_KEYS,
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_after(
        model.mpnet.embeddings, model.mpnet.encoder.layer, PARTS, model.classifier.dense, model.classifier.out_proj
    ),
    tables=("max_position_embeddings",),
    reserved=lambda _: PADDING + 1,
    byte_pairs=False,
    same_heads=True,
    tabled=lambda shape: BUCKETS * shape["heads"],
    overruled=_overruled,
    first_token_alone=first_token_alone,
)
