"""Caches the teacher's logits on the training and transfer rows, once for all rounds.

deps: teacher/model, data | params: data.max_tokens | outs: teacher_logits/
The cache is keyed by teacher, tokenizer and text; `load_logits` refuses rows it was not made for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.data.frames import read_sets
from tasks.data.logits import CACHED_SETS, rows_sha256
from tasks.data.tokens import load_tokens
from tasks.distillation.predict import predict_logits
from tasks.lineage.files import file_sha256, write_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick
from tasks.params import Params
from tasks.progress import Progress
from tasks.stage import InPath, OutPath

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
