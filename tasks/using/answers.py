"""What a classifier says of a person's texts, in torch or ONNX Runtime, checked against stock transformers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tasks.data.tokens import TokenSet, load_tokenizer
from tasks.errors import SourceError, UserError
from tasks.models.checkpoint import load_classifier, refuse_other_tokens
from tasks.models.devices import pick, usable_cores
from tasks.models.predict import predict_logits
from tasks.progress import INTERVAL_SECONDS, Progress
from tasks.using.classifier import Answer, Classifier, Logits, labels_of
from tasks.using.forms import Row
from tasks.using.model import INT8, Found, longest_text
from tasks.using.texts import Texts, text_of

ROWS_AT_A_TIME: Final = 1_024  # in memory, whatever the size of the file
BATCH_ROWS: Final = 32


def load(found: Found, form: str) -> Classifier:
    """Return the classifier of a model, to run in `form`; UserError for files that cannot be used."""
    file = found.file(form)
    try:
        refuse_other_tokens(found.folder)
        logits = _of_torch(found.folder) if file is None else _of_onnx(file, form)
        tokenizer = load_tokenizer(found.folder / "tokenizer.json", longest_text(found))
    except SourceError as error:  # which calls the model that it knows a teacher
        raise UserError(f"{found.words}: {str(error).removeprefix('teacher.model: ')}") from None
    return Classifier(labels_of(found.config), longest_text(found), tokenizer, logits)


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


def answered(classifier: Classifier, texts: Texts) -> Iterator[tuple[Row, Answer | None]]:
    """Yield each row of a file with its answer, in order; what takes longer than two seconds tells how far it is."""
    progress, started = Progress("predict", texts.rows, "rows"), time.monotonic()
    for rows in texts.batches(ROWS_AT_A_TIME):
        answers = classifier.answer([text_of(row, texts.text) for row in rows])
        yield from zip(rows, answers, strict=True)
        if time.monotonic() - started > INTERVAL_SECONDS:
            progress.update(classifier.tally.rows)
