"""DistilBERT: where each axis lives. As BERT, without token types; a layer of its own before the classifier is the pooler."""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.family import Family
from tasks.models.architectures.layout import Axes, Layout, Parts, inside, norm, product, sites_after

KEYS: Final = {"vocabulary": "vocab_size", "hidden": "dim", "heads": "n_heads", "ffn": "hidden_dim", "layers": "n_layers"}
OUTSIDE: Final[dict[str, Axes]] = {
    "distilbert.embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
    "distilbert.embeddings.position_embeddings.weight": (None, "hidden"),
    **norm("distilbert.embeddings.LayerNorm"),
    **product("pre_classifier", "pooler", "hidden"),
    **product("classifier", None, "pooler"),
}
PARTS: Final = Parts(
    queries=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    mixed="attention.out_lin",
    neurons=("ffn.lin1",),
    summed="ffn.lin2",
    norms=("sa_layer_norm", "output_layer_norm"),
)
LAYOUT: Final = Layout("distilbert.transformer.layer", ("distilbert.embeddings",), OUTSIDE, inside(PARTS))
FAMILY: Final = Family(
    READS="first",
    keys=KEYS,
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_after(
        model.distilbert.embeddings, model.distilbert.transformer.layer, PARTS, model.pre_classifier, model.classifier
    ),
    tables=("max_position_embeddings",),
    byte_pairs=False,
)
