"""RoBERTa: BERT's layers under other names; a dense layer of the classifier is the pooler.

Positions are counted from the padding id on, so the first `pad_token_id + 1` rows of their table are no positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from tasks.models.architectures.bert import (
    INSIDE,
    READS,
    count_parameters,
    flops_per_example,
    head_groups,
    head_size,
    resized,
    shape,
)
from tasks.models.architectures.refusals import too_few_tokens, unequal_heads
from tasks.models.architectures.sites import Sites
from tasks.pruning.layout import Axes, Layout

__all__ = [
    "READS", "count_parameters", "flops_per_example", "head_groups", "head_size", "layout", "refusal", "relations",
    "resized", "shape", "sites",
]  # fmt: skip

OUTSIDE: Final[dict[str, Axes]] = {
    "roberta.embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
    "roberta.embeddings.position_embeddings.weight": (None, "hidden"),
    "roberta.embeddings.token_type_embeddings.weight": (None, "hidden"),
    "roberta.embeddings.LayerNorm.weight": ("hidden",),
    "roberta.embeddings.LayerNorm.bias": ("hidden",),
    "classifier.dense.weight": ("pooler", "hidden"),
    "classifier.dense.bias": ("pooler",),
    "classifier.out_proj.weight": (None, "pooler"),
    "classifier.out_proj.bias": (None,),
}


def layout(config: Mapping[str, Any]) -> Layout:  # noqa: ARG001 - the same for every RoBERTa
    """Return the axes of every weight."""
    return Layout("roberta.encoder.layer", ("roberta.embeddings",), OUTSIDE, INSIDE)


def refusal(config: Mapping[str, Any], new_shape: Mapping[str, int]) -> str | None:
    """Return why stock classes cannot hold a model of this shape cut from this config, None when they can."""
    family = "roberta"
    return unequal_heads(new_shape, head_size(config), family) or too_few_tokens(new_shape, shape(config), family)


def sites(model: Any) -> Sites:
    """Return where the channels of a model can be seen; a layer norm's output also feeds the residual stream."""
    layers = list(model.roberta.encoder.layer)
    queries = [[layer.attention.self.query, layer.attention.self.key, layer.attention.self.value] for layer in layers]
    hidden = [(model.roberta.embeddings.LayerNorm, queries[0])]
    for layer, readers in zip(layers, [*queries[1:], [model.classifier.dense]], strict=True):
        hidden.append((layer.attention.output.LayerNorm, [layer.intermediate.dense]))
        hidden.append((layer.output.LayerNorm, readers))
    return Sites(
        ffn=[layer.output.dense for layer in layers],
        attention=[layer.attention.output.dense for layer in layers],
        hidden=hidden,
        pooler=model.classifier.out_proj,
    )


def relations(model: Any) -> list[nn.Module]:
    """Return the products whose outputs are query, key and value of the last layer."""
    attention = model.roberta.encoder.layer[-1].attention.self
    return [attention.query, attention.key, attention.value]
