"""RoBERTa: BERT's layers under other names; a dense layer of the classifier is the pooler.

Positions are counted from the padding id on, so the first `pad_token_id + 1` rows of their table are no positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.models.architectures.bert import (
    EMBEDDINGS,
    INSIDE,
    READS,
    count_parameters,
    encoder_sites,
    first_token_alone,
    flops_per_example,
    head_groups,
    head_size,
    relations,
    resized,
    shape,
)
from tasks.models.architectures.layout import Axes, Layout, Sites, too_few_tokens, unequal_heads

__all__ = [
    "READS",
    "count_parameters",
    "first_token_alone",
    "flops_per_example",
    "head_groups",
    "head_size",
    "layout",
    "refusal",
    "relations",
    "resized",
    "shape",
    "sites",
]

OUTSIDE: Final[dict[str, Axes]] = {
    **{f"roberta.embeddings.{name}": axes for name, axes in EMBEDDINGS.items()},
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
    """Return where the channels of a model can be seen."""
    return encoder_sites(model, model.classifier.dense, model.classifier.out_proj)
