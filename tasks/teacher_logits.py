"""Caches the teacher's logits on the training and transfer rows, once for all rounds; with distill.hidden its states too.

deps: teacher/model, data | params: data.max_tokens, distill.hidden | outs: teacher_logits/
The cache is keyed by teacher, tokenizer and text; `load_logits` refuses rows it was not made for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.frames import read_sets
from tasks.data.logits import CACHED_SETS, rows_sha256, states_file
from tasks.data.tokens import load_tokens
from tasks.distillation.hidden import KINDS
from tasks.distillation.predict import predict_logits
from tasks.lineage.files import file_sha256, write_json
from tasks.models.architectures import num_layers
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device, pick
from tasks.models.states import predict_states
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
    fingerprint: dict[str, Any] = {
        "teacher_sha256": file_sha256(teacher / "model.safetensors"),
        "tokenizer_sha256": file_sha256(teacher / "tokenizer.json"),
        "max_tokens": params.data.max_tokens,
        "rows_sha256": rows_sha256(frames),
    }
    if params.distill.hidden is not None:
        every = list(range(1, num_layers(model) + 1))
        fingerprint["state_layers"] = every if params.distill.hidden.layers == "uniform" else every[-1:]
        for name, frame in frames.items():
            _cache_states(model, tokens / name, len(frame), fingerprint["state_layers"], states_file(out, name), device)
    write_json(out / "fingerprint.json", fingerprint)
    return {"rows": sum(map(len, frames.values())), **device.facts()}


def _cache_states(model: Any, tokens: Path, rows: int, layers: list[int], out: Path, device: Device) -> None:
    """Write the states of a set's rows; on disk as they are found, so memory does not grow with the rows."""
    shape = (rows, len(layers), len(KINDS), model.config.hidden_size)
    if rows == 0:
        np.save(out, np.zeros(shape, dtype=np.float16))
        return
    states = np.lib.format.open_memmap(out, mode="w+", dtype=np.float16, shape=shape)
    progress = Progress(f"teacher_logits {out.name}", rows, "rows")
    predict_states(model, load_tokens(tokens), layers, BATCH_ROWS, device, states, progress.update)
    states.flush()
