"""Exports a classifier to ONNX (fp32 and dynamic int8) and tries all three forms against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tasks.data.pairs import Text
from tasks.data.tokens import TokenSet, tokenize
from tasks.exports.load_back import ATOL, LoadBack, Logits, max_difference
from tasks.exports.onnx import FP32_FILE, INT8_FILE, OnnxClassifier, export_onnx, quantise_int8
from tasks.files import write_json
from tasks.models.checkpoint import load_classifier
from tasks.models.predict import inputs_of, knows_types
from tasks.progress import say

PARITY_ROWS: Final = 64
GOLDEN_ROWS: Final = 8  # texts kept with their logits, so that every later copy of the model can be asked again
DECIMALS: Final = 6  # of the golden logits: far finer than the tolerance, and the same on like machines


def export(model: Path, texts: list[Text], data: Mapping[str, Any], threads: int, out: Path) -> dict[str, Any]:
    """Write both ONNX files and golden.json below `out`, and return how far each form is from the model: parity.json.

    The files of a model that reads pairs, and tells their texts apart, take the types of tokens as a third input. `data` is the
    section data of params.yaml as plain values.
    """
    texts, longest, tokenizer = texts[:PARITY_ROWS], data["max_tokens"], model / "tokenizer.json"
    tokens = tokenize(texts, tokenizer, longest)
    golden = golden_texts(texts[:GOLDEN_ROWS], tokens.lengths.tolist(), longest)
    with LoadBack(model, texts, longest, threads, golden) as fresh:
        classifier = load_classifier(model)
        reference = _torch_logits(classifier, tokens)
        export_onnx(classifier, out / FP32_FILE, types=tokens.types is not None and knows_types(classifier))
        quantise_int8(out / FP32_FILE, out / INT8_FILE)
        golden_logits = _torch_logits(classifier, tokenize(golden, tokenizer, longest))
        together, alone = fresh.logits()
        onnx, onnx_int8 = (_onnx_logits(out / file, tokens, threads) for file in (FP32_FILE, INT8_FILE))
    write_json(out / "golden.json", golden_answers(golden, golden_logits, classifier.config.id2label))
    parity = compare(reference, load_back=together, onnx=onnx, onnx_int8=onnx_int8)
    # A text by itself, in a process that knows the folder alone: what a user will see.
    parity["golden_max_difference"] = max_difference(golden_logits, alone)
    say(
        f"export: load-back differs by {parity['load_back_max_difference']:.1e}, onnx by "
        f"{parity['onnx_max_difference']:.1e}; int8 agrees on {parity['onnx_int8_agreement']:.0%} of {len(texts)} rows"
    )
    return parity


def golden_texts(texts: list[Text], lengths: list[int], max_tokens: int) -> list[Text]:
    """Return the texts, long ones cut to so few characters that no user of the model cuts them elsewhere."""
    return [text if length < max_tokens else _cut(text, max_tokens // 4) for text, length in zip(texts, lengths, strict=False)]


def _cut(text: Text, characters: int) -> Text:
    return text[:characters] if isinstance(text, str) else (text[0][: characters // 2], text[1][: characters // 2])


def golden_answers(texts: list[Text], logits: Logits, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the content of golden.json: texts with the logits and the label that every copy of the model must give."""
    finite = np.nan_to_num(logits.astype(np.float64), nan=np.finfo(np.float64).max)  # JSON has no NaN
    rows: list[dict[str, Any]] = [
        {
            **({"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}),
            "label": str(names[int(row.argmax())]),
            "logits": [round(value, DECIMALS) for value in row.tolist()],
        }
        for text, row in zip(texts, finite, strict=True)
    ]
    return {"rows": rows, "atol": ATOL}


def compare(reference: Logits, *, load_back: Logits, onnx: Logits, onnx_int8: Logits) -> dict[str, Any]:
    """Return the content of parity.json from the logits of the four forms, each of shape (rows, classes)."""
    return {
        "rows": len(reference),
        "atol": ATOL,
        "load_back_max_difference": max_difference(reference, load_back),
        "onnx_max_difference": max_difference(reference, onnx),
        "onnx_int8_max_difference": max_difference(reference, onnx_int8),
        "onnx_int8_agreement": round(float(np.mean(reference.argmax(axis=1) == onnx_int8.argmax(axis=1))), 6),
    }


def _torch_logits(model: Any, tokens: TokenSet) -> Logits:
    """Return the logits of all rows as one batch: the same shapes as in the fresh process, so the same rounding."""
    with torch.inference_mode():
        logits: Logits = model(**inputs_of(model, tokens, np.arange(len(tokens)))).logits.numpy()
    return logits


def _onnx_logits(path: Path, tokens: TokenSet, threads: int) -> Logits:
    return OnnxClassifier(path, threads).logits_of(tokens, np.arange(len(tokens)))
