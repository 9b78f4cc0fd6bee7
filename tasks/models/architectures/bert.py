"""BERT: where each axis lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tasks.models.architectures.family import USUAL_KEYS, Family
from tasks.models.architectures.layout import Axes, Layout, Parts, inside, norm, product, sites_after

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDINGS: Final[dict[str, Axes]] = {
    "word_embeddings.weight": ("vocabulary", "hidden"),
    "position_embeddings.weight": (None, "hidden"),
    "token_type_embeddings.weight": (None, "hidden"),
    **norm("LayerNorm"),
}
TABLES: Final = ("max_position_embeddings", "type_vocab_size")
OUTSIDE: Final = {
    **{f"bert.embeddings.{name}": axes for name, axes in EMBEDDINGS.items()},
    **product("bert.pooler.dense", "pooler", "hidden"),
    **product("classifier", None, "pooler"),
}
PARTS: Final = Parts(
    queries=("attention.self.query", "attention.self.key", "attention.self.value"),
    mixed="attention.output.dense",
    neurons=("intermediate.dense",),
    summed="output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
)
LAYOUT: Final = Layout("bert.encoder.layer", ("bert.embeddings",), OUTSIDE, inside(PARTS))


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
            for part, states in ((attention.query, first_B1D), (attention.key, hidden_BTD), (attention.value, hidden_BTD))
        )
        scores_BH1T = query @ key.transpose(-1, -2) * attention.scaling
        if attention_mask is not None:
            scores_BH1T = scores_BH1T + attention_mask[:, :, :1]
        shares_BH1T = attention.dropout(scores_BH1T.softmax(dim=-1).to(value.dtype))
        mixed_B1D = (shares_BH1T @ value).transpose(1, 2).flatten(-2)
        result: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed_B1D, first_B1D))
        return result

    layer.forward = forward


FAMILY: Final = Family(
    READS="first",
    keys=USUAL_KEYS,
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_after(
        model.bert.embeddings, model.bert.encoder.layer, PARTS, model.bert.pooler.dense, model.classifier
    ),
    tables=TABLES,
    byte_pairs=False,
    first_token_alone=first_token_alone,
)
