"""RoBERTa: BERT's layers under other names; a dense layer of the classifier is the pooler.

Positions are counted from the padding id on, so the first `pad_token_id + 1` rows of their table are no positions.
"""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.bert import EMBEDDINGS, PARTS, TABLES, first_token_alone
from tasks.models.architectures.family import USUAL_KEYS, Family
from tasks.models.architectures.layout import Layout, inside, product, sites_after

OUTSIDE: Final = {
    **{f"roberta.embeddings.{name}": axes for name, axes in EMBEDDINGS.items()},
    **product("classifier.dense", "pooler", "hidden"),
    **product("classifier.out_proj", None, "pooler"),
}
LAYOUT: Final = Layout("roberta.encoder.layer", ("roberta.embeddings",), OUTSIDE, inside(PARTS))
FAMILY: Final = Family(
    READS="first",
    keys=USUAL_KEYS,
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_after(
        model.roberta.embeddings, model.roberta.encoder.layer, PARTS, model.classifier.dense, model.classifier.out_proj
    ),
    tables=TABLES,
    reserved=lambda config: int(config.get("pad_token_id", 1)) + 1,
    byte_pairs=True,
    first_token_alone=first_token_alone,
)
