"""What a classifier says of texts, in torch or ONNX Runtime: the very probabilities of stock transformers.

Letters: N texts, C classes.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.data.tokens import TokenSet, load_tokenizer
from tasks.errors import SourceError, UserError
from tasks.models.checkpoint import load_classifier, refuse_other_tokens
from tasks.models.devices import pick, usable_cores
from tasks.models.predict import predict_logits
from tasks.progress import INTERVAL_SECONDS, Progress
from tasks.using.forms import Row
from tasks.using.model import INT8, Found, longest_text
from tasks.using.texts import Texts, text_of

ROWS_AT_A_TIME: Final = 1_024  # in memory, whatever the size of the file
BATCH_ROWS: Final = 32

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
        if asked:
            tokens, cut = _tokens(self.tokenizer, [texts[place] for place in asked])
            self.tally.cut += cut
            for place, scores in zip(asked, _probabilities(self.logits(tokens)).tolist(), strict=True):
                best = max(range(len(scores)), key=scores.__getitem__)
                answers[place] = Answer(self.labels[best], scores[best], scores)
        self.tally.rows += len(texts)
        self.tally.empty += len(texts) - len(asked)
        return answers


def load(found: Found, form: str) -> Classifier:
    """Return the classifier of a model, to run in `form`; UserError for files that cannot be used."""
    file = found.file(form)
    try:
        refuse_other_tokens(found.folder)
        logits = _of_torch(found.folder) if file is None else _of_onnx(file, form)
        tokenizer = load_tokenizer(found.folder / "tokenizer.json", longest_text(found))
    except SourceError as error:  # which calls the model that it knows a teacher
        raise UserError(f"{found.words}: {str(error).removeprefix('teacher.model: ')}") from None
    return Classifier(_labels(found.config), longest_text(found), tokenizer, logits)


def _of_torch(folder: Path) -> Callable[[TokenSet], Logits]:
    model, device = load_classifier(folder), pick("auto", "fp32", None)
    return lambda tokens: predict_logits(model, tokens, BATCH_ROWS, device)


def _of_onnx(file: Path, form: str) -> Callable[[TokenSet], Logits]:
    """Return a file that answers; int8 text by text, for its scales follow from all of a batch, and so would the answers."""
    from tasks.exports.onnx import OnnxClassifier

    try:
        session = OnnxClassifier(file, usable_cores())
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise UserError(f"{file}: ONNX Runtime cannot read it ({' '.join(str(error).split())[:200]}); write it anew") from None
    rows = 1 if form == INT8 else BATCH_ROWS
    return lambda tokens: session.predict(tokens, rows)


def _labels(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes in order; those that nobody named are called as stock classes call them."""
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        return [str(named[number]) for number in sorted(named, key=int)]
    return [f"LABEL_{number}" for number in range(int(config.get("num_labels", 2)))]


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> tuple[TokenSet, int]:
    """Return the ids of texts with special tokens, and how many texts were cut."""
    ids, offsets, cut = array("i"), [0], 0
    for encoding in tokenizer.encode_batch_fast(texts):
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


def answered(classifier: Classifier, texts: Texts) -> Iterator[tuple[Row, Answer | None]]:
    """Yield each row of a file with its answer, in order; what takes longer than two seconds tells how far it is."""
    progress, started = Progress("predict", texts.rows, "rows"), time.monotonic()
    for rows in texts.batches(ROWS_AT_A_TIME):
        answers = classifier.answer([text_of(row, texts.text) for row in rows])
        yield from zip(rows, answers, strict=True)
        if time.monotonic() - started > INTERVAL_SECONDS:
            progress.update(classifier.tally.rows)
