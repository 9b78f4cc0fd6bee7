"""Caches what the teacher says of the texts that students learn from, once for all rounds.

Of a classifier the logits of training, transfer and validation rows and, with distill.hidden, its states of the first two. Of a
language model its best pieces, where distill.cache asks for them. The cache is keyed by teacher, tokenizer and text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tasks.files import file_sha256, write_json
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.running.stage import InPath, OutPath
from tasks.training import causal_lm, classification
from tasks.training.lesson import Texts

Cached = tuple[dict[str, Any], dict[str, Any]]
CACHE: Final[Mapping[str, Callable[..., Cached]]] = {CLASSIFICATION: classification.cache, CAUSAL_LM: causal_lm.cache}


def run(params: Params, *, teacher: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return how many rows, or blocks, were cached."""
    out.mkdir(parents=True, exist_ok=True)
    fingerprint, facts = CACHE[params.task](params, teacher, Texts(sets, tokens), out)
    whose = {"teacher_sha256": file_sha256(teacher / "model.safetensors")}
    write_json(out / "fingerprint.json", {**whose, **fingerprint})
    return facts
