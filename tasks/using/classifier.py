"""A classifier that is loaded, whatever runs it: texts in, the very probabilities of stock transformers out.

Nothing here loads torch. Letters: N texts, C classes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.data.tokens import TokenSet
from tasks.errors import UserError

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """The most probable class of a text and its probability, and those of all classes in the model's order."""

    label: str
    score: float
    scores: Sequence[float]


@dataclass
class Tally:
    """What was done: rows read, texts cut at so many tokens, rows without a text."""

    rows: int = 0
    cut: int = 0
    empty: int = 0


@dataclass
class Classifier:
    """A classifier that is loaded: its classes, how many tokens of a text it reads, and what it has been asked so far."""

    labels: list[str]
    longest: int | None
    tokenizer: Tokenizer
    logits: Callable[[TokenSet], Logits]
    tally: Tally = field(default_factory=Tally)

    def answer(self, texts: Sequence[str]) -> list[Answer | None]:
        """Return the answer to each text, None to a blank one."""
        asked = [place for place, text in enumerate(texts) if text.strip()]
        answers: list[Answer | None] = [None] * len(texts)
        given, cut = self.answer_all([texts[place] for place in asked])
        for place, answer in zip(asked, given, strict=True):
            answers[place] = answer
        self.tally.cut += cut
        self.tally.rows += len(texts)
        self.tally.empty += len(texts) - len(asked)
        return answers

    def answer_all(self, texts: Sequence[str]) -> tuple[list[Answer], int]:
        """Return the answer to each text, to a blank one too as stock classes do, and how many texts were cut; count nothing."""
        if not texts:
            return [], 0
        tokens, cut = _tokens(self.tokenizer, texts)
        answers = []
        for scores in _probabilities(self.logits(tokens)).tolist():
            best = max(range(len(scores)), key=scores.__getitem__)
            answers.append(Answer(self.labels[best], scores[best], scores))
        return answers, cut


def labels_of(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes in order; those that nobody named are called as stock classes call them."""
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        return [str(named[number]) for number in sorted(named, key=int)]
    return [f"LABEL_{number}" for number in range(int(config.get("num_labels", 2)))]


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[TokenSet, int]:
    """Return the ids of texts with special tokens, and how many texts were cut."""
    ids, offsets, cut = array("i"), [0], 0
    for encoding in tokenizer.encode_batch_fast(list(texts)):
        ids.extend(encoding.ids)
        offsets.append(len(ids))
        cut += bool(encoding.overflowing)
    return TokenSet(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64)), cut


def _probabilities(logits_NC: Logits) -> NDArray[np.float64]:
    if not np.isfinite(logits_NC).all():
        raise UserError("the model answers with numbers that are not finite (NaN or infinite); its weights are broken")
    exact_NC = logits_NC.astype(np.float64)
    powers_NC = np.exp(exact_NC - exact_NC.max(axis=1, keepdims=True))
    return np.asarray(powers_NC / powers_NC.sum(axis=1, keepdims=True))
