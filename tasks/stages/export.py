"""Exports a model to ONNX (fp32 and dynamic int8) and tries all three forms against it: the load-back contract.

deps: a model folder, data/sets | params: data.max_tokens | outs: rounds/<round>/exported
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data.frames import read_sets
from tasks.data.tokens import TokenSet, collate, tokenize
from tasks.exports.load_back import LoadBack
from tasks.exports.onnx import FP32_FILE, INT8_FILE, OnnxClassifier, export_onnx, quantise_int8
from tasks.files import write_json
from tasks.models.checkpoint import load_classifier, pad_id
from tasks.models.devices import pick
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath

PARITY_ROWS: Final = 64
GOLDEN_ROWS: Final = 8  # texts kept with their logits, so that every later copy of the model can be asked again
DECIMALS: Final = 6  # of the golden logits: far finer than the tolerance, and the same on like machines
ATOL: Final = 1e-4

Logits = NDArray[np.float32]


def run(params: ClassificationParams, *, model: InPath, sets: InPath, out: OutPath) -> dict[str, Any]:
    """Return the content of parity.json. A broken promise is recorded there and left to the gate."""
    device = pick("cpu", "fp32", params.runtime.threads)  # the files are read by CPU runtimes
    texts = read_sets(sets, ["validation"])["validation"]["text"].tolist()[:PARITY_ROWS]
    out.mkdir(parents=True, exist_ok=True)
    tokens = tokenize(texts, model / "tokenizer.json", params.data.max_tokens)
    short = golden_texts(texts[:GOLDEN_ROWS], tokens.lengths.tolist(), params.data.max_tokens)
    with LoadBack(model, texts, params.data.max_tokens, device.threads, short) as fresh:
        classifier = load_classifier(model)
        reference = _torch_logits(classifier, tokens)
        export_onnx(classifier, out / FP32_FILE)
        quantise_int8(out / FP32_FILE, out / INT8_FILE)
        golden_logits = _torch_logits(classifier, tokenize(short, model / "tokenizer.json", params.data.max_tokens))
        together, alone = fresh.logits()
        parity = compare(
            reference,
            load_back=together,
            onnx=_onnx_logits(out / FP32_FILE, tokens, device.threads),
            onnx_int8=_onnx_logits(out / INT8_FILE, tokens, device.threads),
        )
    # A text by itself, in a process that knows the folder alone: what a user will see.
    parity["golden_max_difference"] = max_difference(golden_logits, alone)
    write_json(out / "golden.json", golden_answers(short, golden_logits, classifier.config.id2label))
    write_json(out / "parity.json", parity)
    say(
        f"export: load-back differs by {parity['load_back_max_difference']:.1e}, onnx by "
        f"{parity['onnx_max_difference']:.1e}; int8 agrees on {parity['onnx_int8_agreement']:.0%} of {len(texts)} rows"
    )
    return parity


def golden_texts(texts: list[str], lengths: list[int], max_tokens: int) -> list[str]:
    """Return the texts, long ones cut to so few characters that no user of the model cuts them elsewhere."""
    return [
        text if length < max_tokens else text[: max_tokens // 4] for text, length in zip(texts, lengths, strict=False)
    ]


def golden_answers(texts: list[str], logits: Logits, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the content of golden.json: texts with the logits and the label that every copy of the model must give."""
    finite = np.nan_to_num(logits.astype(np.float64), nan=np.finfo(np.float64).max)  # JSON has no NaN
    rows = [
        {"text": text, "label": str(names[int(row.argmax())]), "logits": [round(float(one), DECIMALS) for one in row]}
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


def max_difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the largest absolute difference, shortened to three digits; a NaN counts as the largest float there is."""
    largest = float(np.abs(first.astype(np.float64) - second).max())
    return float(f"{largest:.3g}") if np.isfinite(largest) else float(np.finfo(np.float64).max)


def _torch_logits(model: Any, tokens: TokenSet) -> Logits:
    """Return the logits of all rows as one batch: the same shapes as in the fresh process, so the same rounding."""
    ids_BT, mask_BT = (torch.from_numpy(array) for array in collate(tokens, np.arange(len(tokens)), pad_id(model)))
    with torch.inference_mode():
        logits: Logits = model(input_ids=ids_BT, attention_mask=mask_BT).logits.numpy()
    return logits


def _onnx_logits(path: Path, tokens: TokenSet, threads: int) -> Logits:
    session = OnnxClassifier(path, threads)
    return session.logits(*collate(tokens, np.arange(len(tokens)), session.pad_id))
