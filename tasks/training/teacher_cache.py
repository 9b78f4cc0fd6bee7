"""What is cached of a teacher: logits and states of rows, tied by fingerprint to the rows they were made for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tasks.data.pairs import joined_texts
from tasks.data.tokens import TokenSet
from tasks.errors import DataError
from tasks.files import file_sha256, read_json
from tasks.models.architectures import adapter_of
from tasks.models.devices import Device
from tasks.models.predict import predict_batches, predict_logits
from tasks.progress import Progress
from tasks.training.hidden import KINDS, row_states

LEARNT_SETS: Final = ("train", "transfer")
CHECKPOINT_SET: Final = "validation"  # its logits choose the checkpoint, and nothing is learnt from them
CACHED_SETS: Final = (*LEARNT_SETS, CHECKPOINT_SET)
BATCH_ROWS: Final = 128


def texts_sha256(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return, for each cached set, the sha256 of its row ids and texts in order."""
    return {name: _texts_sha256(frames[name]) for name in CACHED_SETS}


def _texts_sha256(frame: pd.DataFrame) -> str:
    lines = "\n".join(f"{row_id}\t{text}" for row_id, text in zip(frame["row_id"], joined_texts(frame), strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_teacher(folder: Path, teacher: Path) -> None:
    """Raise DataError unless what a folder caches comes from the weights and the tokenizer of this teacher."""
    known = read_json(folder / "fingerprint.json")
    for file, key in (("model.safetensors", "teacher_sha256"), ("tokenizer.json", "tokenizer_sha256")):
        if file_sha256(teacher / file) != known[key]:
            raise DataError(f"{folder}: belongs to another {teacher / file}; run `dvc repro teacher_logits`")


def load_logits(folder: Path, frames: Mapping[str, pd.DataFrame], names: Sequence[str] = LEARNT_SETS) -> NDArray[np.float32]:
    """Return the cached logits of the rows of some sets, one after the other; DataError if they were made for other rows."""
    _check_rows(folder, frames)
    return np.concatenate([np.load(folder / f"{name}.npy") for name in names])


class States:
    """The cached states of train then transfer rows, read from disk row by row."""

    def __init__(self, folder: Path, frames: Mapping[str, pd.DataFrame], layers: Sequence[int]) -> None:
        """Take the teacher's layers wanted, counted from 1; DataError if they are not cached or for other rows."""
        _check_rows(folder, frames)
        cached = read_json(folder / "fingerprint.json").get("state_layers", [])
        if not set(layers) <= set(cached):
            raise DataError(
                f"{folder}: states of layers {list(layers)} are wanted and of {cached} cached; run `dvc repro teacher_logits`"
            )
        self._places = [cached.index(layer) for layer in layers]
        self._parts = [np.load(states_file(folder, name), mmap_mode="r" if len(frames[name]) else None) for name in LEARNT_SETS]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the states of some rows, shape (rows, layers, kinds, channels)."""
        first, second = self._parts
        early = rows < len(first)
        states = np.empty((len(rows), *first.shape[1:]), dtype=np.float32)
        states[early], states[~early] = first[rows[early]], second[rows[~early] - len(first)]
        return states[:, self._places]


def states_file(folder: Path, name: str) -> Path:
    """Return where the states of a set's rows are: float16 of shape (rows, layers, kinds, channels)."""
    return folder / f"{name}.states.npy"


def _check_rows(folder: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    known: Any = read_json(folder / "fingerprint.json")["rows_sha256"]
    if known != texts_sha256(frames):
        raise DataError(f"{folder}: the cached teacher logits belong to other rows; run `dvc repro teacher_logits`")


def reads(model: Any) -> str:
    """Return which token the classifier reads: the `first` or the `last` of a row."""
    return str(adapter_of(model.config.to_dict()).READS)


def predict_states(
    model: Any,
    tokens: TokenSet,
    layers: Sequence[int],
    batch_rows: int,
    device: Device,
    into: NDArray[Any],
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return float32 logits (rows, classes), and write the states of the layers `into` (rows, layers, kinds, channels).

    Layers are counted from 1; rows are in their order. Both come from one pass over the rows.
    """
    logits = np.zeros((len(tokens), model.config.num_labels), dtype=np.float32)
    batches = predict_batches(model, tokens, batch_rows, device, on_batch, output_hidden_states=True)
    for rows, mask_BT, outputs in batches:
        states = [row_states(outputs.hidden_states[layer], mask_BT, reads(model)) for layer in layers]
        into[rows] = torch.stack(states, dim=1).cpu().numpy()
        logits[rows] = outputs.logits.float().cpu().numpy()
    return logits


def write_rows(model: Any, tokens: TokenSet, layers: Sequence[int], place: Path, device: Device) -> None:
    """Write the logits of a set as `<place>.npy`, and the states of the layers, if any are wanted, beside them.

    States go to disk batch by batch, so memory does not grow with the rows.
    """
    progress = Progress(f"teacher_logits {place.name}", len(tokens), "rows")
    if not layers:
        np.save(f"{place}.npy", predict_logits(model, tokens, BATCH_ROWS, device, progress.update))
        return
    shape = (len(tokens), len(layers), len(KINDS), model.config.hidden_size)
    file = states_file(place.parent, place.name)
    if not len(tokens):  # an empty file cannot be mapped
        np.save(file, np.zeros(shape, dtype=np.float16))
        np.save(f"{place}.npy", np.zeros((0, model.config.num_labels), dtype=np.float32))
        return
    states = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
    np.save(f"{place}.npy", predict_states(model, tokens, layers, BATCH_ROWS, device, states, progress.update))
    states.flush()
