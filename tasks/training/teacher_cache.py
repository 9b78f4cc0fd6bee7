"""Cached teacher logits and states, tied by fingerprint to the rows they were made for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.files import file_sha256, read_json

LEARNT_SETS: Final = ("train", "transfer")
CHECKPOINT_SET: Final = "validation"  # its logits choose the checkpoint, and nothing is learnt from them
CACHED_SETS: Final = (*LEARNT_SETS, CHECKPOINT_SET)


def texts_sha256(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return, for each cached set, the sha256 of its row ids and texts in order."""
    return {name: _texts_sha256(frames[name]) for name in CACHED_SETS}


def _texts_sha256(frame: pd.DataFrame) -> str:
    lines = "\n".join(f"{row_id}\t{text}" for row_id, text in zip(frame["row_id"], frame["text"], strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_teacher(folder: Path, teacher: Path) -> None:
    """Raise DataError unless what a folder caches comes from the weights and the tokenizer of this teacher."""
    known = read_json(folder / "fingerprint.json")
    for file, key in (("model.safetensors", "teacher_sha256"), ("tokenizer.json", "tokenizer_sha256")):
        if file_sha256(teacher / file) != known[key]:
            raise DataError(f"{folder}: belongs to another {teacher / file}; run `dvc repro teacher_logits`")


def load_logits(folder: Path, frames: Mapping[str, pd.DataFrame]) -> NDArray[np.float32]:
    """Return the cached logits of train then transfer rows; DataError if they were made for other rows."""
    _check_rows(folder, frames)
    return np.concatenate([np.load(folder / f"{name}.npy") for name in LEARNT_SETS])


def load_checkpoint_logits(folder: Path, frames: Mapping[str, pd.DataFrame]) -> NDArray[np.float32]:
    """Return the cached logits of the rows that checkpoints are measured on; DataError if they were made for other rows."""
    _check_rows(folder, frames)
    found: NDArray[np.float32] = np.load(folder / f"{CHECKPOINT_SET}.npy")
    return found


class States:
    """The cached states of train then transfer rows, read from disk row by row."""

    def __init__(self, folder: Path, frames: Mapping[str, pd.DataFrame], layers: Sequence[int]) -> None:
        """Take the teacher's layers wanted, counted from 1; DataError if they are not cached or for other rows."""
        _check_rows(folder, frames)
        cached = read_json(folder / "fingerprint.json").get("state_layers", [])
        if not set(layers) <= set(cached):
            raise DataError(
                f"{folder}: states of layers {list(layers)} are wanted and of {cached} cached; "
                "run `dvc repro teacher_logits`"
            )
        self._places = [cached.index(layer) for layer in layers]
        self._parts = [
            np.load(states_file(folder, name), mmap_mode="r" if len(frames[name]) else None) for name in LEARNT_SETS
        ]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the states of some rows, shape (rows, layers, kinds, channels)."""
        first, second = self._parts
        early = rows < len(first)
        found = np.empty((len(rows), *first.shape[1:]), dtype=np.float32)
        found[early], found[~early] = first[rows[early]], second[rows[~early] - len(first)]
        return found[:, self._places]


def states_file(folder: Path, name: str) -> Path:
    """Return where the states of a set's rows are: float16 of shape (rows, layers, kinds, channels)."""
    return folder / f"{name}.states.npy"


def _check_rows(folder: Path, frames: Mapping[str, pd.DataFrame]) -> None:
    known: Any = read_json(folder / "fingerprint.json")["rows_sha256"]
    if known != texts_sha256(frames):
        raise DataError(f"{folder}: the cached teacher logits belong to other rows; run `dvc repro teacher_logits`")
