"""Caches the teacher's logits on the training and transfer rows, once for all rounds.

deps: teacher/model, data | params: data.max_tokens | outs: teacher_logits/
The cache is keyed by teacher, tokenizer and text; `load_logits` refuses rows it was not made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.frames import read_sets
from tasks.data.tokens import load_tokens
from tasks.distillation.predict import predict_logits
from tasks.errors import DataError
from tasks.lineage.files import file_sha256, read_json, write_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.params import Params
from tasks.progress import Progress
from tasks.stage import InPath, OutPath

CACHED_SETS = ("train", "transfer")
BATCH_ROWS = 64


def run(params: Params, *, teacher: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return how many rows were cached."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    model = load_classifier(teacher)
    frames = read_sets(sets, CACHED_SETS)
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        progress = Progress(f"teacher_logits {name}", len(frame), "rows")
        logits = np.zeros((0, len(params.data.labels)), dtype=np.float32)
        if len(frame):
            logits = predict_logits(model, load_tokens(tokens / name), BATCH_ROWS, device, progress.update)
        np.save(out / f"{name}.npy", logits)
    fingerprint = {
        "teacher_sha256": file_sha256(teacher / "model.safetensors"),
        "tokenizer_sha256": file_sha256(teacher / "tokenizer.json"),
        "max_tokens": params.data.max_tokens,
        "rows_sha256": rows_sha256(frames),
    }
    write_json(out / "fingerprint.json", fingerprint)
    return {"rows": sum(map(len, frames.values())), **device.facts()}


def rows_sha256(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return, for each cached set, the sha256 of its row ids and texts in order."""
    return {name: _rows_sha256(frames[name]) for name in CACHED_SETS}


def _rows_sha256(frame: pd.DataFrame) -> str:
    lines = "\n".join(f"{row_id}\t{text}" for row_id, text in zip(frame["row_id"], frame["text"], strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def load_logits(folder: Path, frames: Mapping[str, pd.DataFrame]) -> NDArray[np.float32]:
    """Return the cached logits of train then transfer rows; DataError if they were made for other rows."""
    known = read_json(folder / "fingerprint.json")["rows_sha256"]
    if known != rows_sha256(frames):
        raise DataError(f"{folder}: the cached teacher logits belong to other rows; run `dvc repro teacher_logits`")
    return np.concatenate([np.load(folder / f"{name}.npy") for name in CACHED_SETS])
