"""Caches the teacher's logits on the training, transfer and validation rows, once for all rounds; with distill.hidden its
states of the first two as well.

deps: teacher/model, data | params: data.max_tokens, distill.hidden | outs: teacher_logits/
The cache is keyed by teacher, tokenizer and text; `load_logits` refuses rows it was not made for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.frames import read_sets
from tasks.data.tokens import TokenSet, load_tokens
from tasks.files import file_sha256, write_json
from tasks.models.architectures import leave_out_unread, num_layers
from tasks.models.checkpoint import attend_plainly, load_classifier
from tasks.models.devices import Device, pick
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.progress import Progress
from tasks.running.stage import InPath, OutPath
from tasks.training.extra_losses import predict_states
from tasks.training.hidden import KINDS
from tasks.training.teacher_cache import CACHED_SETS, LEARNT_SETS, states_file, texts_sha256

BATCH_ROWS = 128


def run(params: ClassificationParams, *, teacher: InPath, sets: InPath, tokens: InPath, out: OutPath) -> dict[str, Any]:
    """Return how many rows were cached."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    model = load_classifier(teacher)
    attend_plainly(model, device.device)
    frames = read_sets(sets, CACHED_SETS)
    out.mkdir(parents=True, exist_ok=True)
    layers: list[int] = []
    if params.distill.hidden is not None:
        layers = list(range(1, num_layers(model) + 1))
        layers = layers if params.distill.hidden.layers == "uniform" else layers[-1:]
    else:
        leave_out_unread(model, device.device)
    for name in frames:
        wanted = layers if name in LEARNT_SETS else []
        np.save(out / f"{name}.npy", _cache(model, name, load_tokens(tokens / name), wanted, out, device))
    fingerprint: dict[str, Any] = {
        "teacher_sha256": file_sha256(teacher / "model.safetensors"),
        "tokenizer_sha256": file_sha256(teacher / "tokenizer.json"),
        "max_tokens": params.data.max_tokens,
        "rows_sha256": texts_sha256(frames),
    }
    if layers:
        fingerprint["state_layers"] = layers
    write_json(out / "fingerprint.json", fingerprint)
    return {"rows": sum(map(len, frames.values())), **device.facts()}


def _cache(
    model: Any, name: str, tokens: TokenSet, layers: list[int], out: Path, device: Device
) -> NDArray[np.float32]:
    """Return the logits of a set, and write the states of the layers, if any are wanted, beside them.

    States go to disk as they are found, so memory does not grow with the rows.
    """
    shape = (len(tokens), len(layers), len(KINDS), model.config.hidden_size)
    progress = Progress(f"teacher_logits {name}", len(tokens), "rows")
    if not layers:
        return predict_logits(model, tokens, BATCH_ROWS, device, progress.update)
    if not len(tokens):  # an empty file cannot be mapped
        np.save(states_file(out, name), np.zeros(shape, dtype=np.float16))
        return np.zeros((0, model.config.num_labels), dtype=np.float32)
    states = np.lib.format.open_memmap(states_file(out, name), mode="w+", dtype=np.float16, shape=shape)
    logits = predict_states(model, tokens, layers, BATCH_ROWS, device, states, progress.update)
    states.flush()
    return logits
