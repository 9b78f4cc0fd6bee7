"""DistilBERT: where each axis lives. As BERT, without token types; a layer of its own before the classifier is the pooler."""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.family import Family
from tasks.models.architectures.layout import Axes, Layout, Parts, sites_after

KEYS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "dim",
    "heads": "n_heads",
    "ffn": "hidden_dim",
    "layers": "n_layers",
}
OUTSIDE: Final[dict[str, Axes]] = {
    "distilbert.embeddings.word_embeddings.weight": ("vocabulary", "hidden"),
    "distilbert.embeddings.position_embeddings.weight": (None, "hidden"),
    "distilbert.embeddings.LayerNorm.weight": ("hidden",),
    "distilbert.embeddings.LayerNorm.bias": ("hidden",),
    "pre_classifier.weight": ("pooler", "hidden"),
    "pre_classifier.bias": ("pooler",),
    "classifier.weight": (None, "pooler"),
    "classifier.bias": (None,),
}
INSIDE: Final[dict[str, Axes]] = {
    **{f"attention.{part}_lin.weight": ("heads", "hidden") for part in "qkv"},
    **{f"attention.{part}_lin.bias": ("heads",) for part in "qkv"},
    "attention.out_lin.weight": ("hidden", "heads"),
    "attention.out_lin.bias": ("hidden",),
    "ffn.lin1.weight": ("ffn", "hidden"),
    "ffn.lin1.bias": ("ffn",),
    "ffn.lin2.weight": ("hidden", "ffn"),
    "ffn.lin2.bias": ("hidden",),
    **{f"{norm}.{kind}": ("hidden",) for norm in ("sa_layer_norm", "output_layer_norm") for kind in ("weight", "bias")},
}
PARTS: Final = Parts(
    queries=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    mixed="attention.out_lin",
    neurons=("ffn.lin1",),
    summed="ffn.lin2",
    norms=("sa_layer_norm", "output_layer_norm"),
)
LAYOUT: Final = Layout("distilbert.transformer.layer", ("distilbert.embeddings",), OUTSIDE, INSIDE)
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
