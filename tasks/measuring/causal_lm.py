"""What a language model says of a measured set, as the table that is stored: one row a block of the teacher's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tasks.data.blocks import block_ids, load_blocks
from tasks.data.byte_pairs import token_bytes
from tasks.data.segments import block_bytes, load_segments
from tasks.files import read_json
from tasks.models.devices import Device
from tasks.models.predict import predict_tokens
from tasks.progress import Progress

CHUNK_TOKENS: Final = 512


@dataclass(frozen=True)
class Reader:
    """A model, the teacher whose ids its tokens have as `kept_V` (both None where the tokens are the teacher's), and how."""

    model: Any
    teacher: Any
    kept_V: torch.Tensor | None
    batch_blocks: int
    device: Device

    def read(self, tokens: Path, name: str, label: str) -> pd.DataFrame:
        """Return `row_id`, `tokens` and `bytes` of the teacher's blocks, `nll_nats`, and `choices` of the model's own tokens.

        `label` is what the progress is of.
        """
        if self.kept_V is None:
            return self._read_blocks(tokens, name, label)
        return self._read_segments(tokens, name, label, self.kept_V)

    def _read_blocks(self, tokens: Path, name: str, label: str) -> pd.DataFrame:
        blocks = load_blocks(tokens, name)
        nll_NT, choices_NT = predict_tokens(
            self.model,
            blocks,
            self.batch_blocks,
            CHUNK_TOKENS,
            self.device,
            Progress(label, len(blocks), "blocks").update,
        )
        return pd.DataFrame(
            {
                "row_id": block_ids(blocks),
                "tokens": np.full(len(blocks), choices_NT.shape[1], dtype=np.int64),
                "bytes": block_bytes(blocks, read_json(tokens / "tokenizer.json")),
                "nll_nats": nll_NT.sum(axis=1, dtype=np.float64),
                "choices": list(choices_NT),
            }
        )

    def _read_segments(self, tokens: Path, name: str, label: str, kept_V: torch.Tensor) -> pd.DataFrame:
        """Return the same of a student with other tokens, and what the teacher holds most likely of these.

        `nll_nats` is the sum over the student's tokens but the first, times the bytes which the teacher was asked for over those
        which the student was: their first tokens are not equally long.
        """
        found = load_segments(tokens, name)
        assert found is not None, "a student with other tokens has segments"
        segments, windows = found
        how = (windows.ids_WT, self.batch_blocks, CHUNK_TOKENS, self.device)
        nll_WT, choices_WT = predict_tokens(self.model, *how, Progress(label, len(windows.ids_WT), "windows").update)
        _, teachers_WT = predict_tokens(self.teacher, *how, None, kept_V.to(self.device.device))
        sizes_WT = token_bytes(read_json(tokens / "tokenizer.json"))[windows.ids_WT[:, 1:]]
        asked = np.array([one.sum() for one in windows.per_segment(sizes_WT)])
        nats = np.array([one.sum(dtype=np.float64) for one in windows.per_segment(nll_WT)])
        return pd.DataFrame(
            {
                **{column: segments[column].to_numpy() for column in ("row_id", "tokens", "bytes")},
                "nll_nats": nats * segments["bytes"].to_numpy() / asked,
                "choices": windows.per_segment(choices_WT),
                TEACHERS: windows.per_segment(teachers_WT),
            }
        )


COLUMNS: Final = ("row_id", "tokens", "bytes", "nll_nats", "choices", "agreed")
TEACHERS: Final = "teacher_choices"  # what the teacher holds most likely of a student's own tokens, where these differ
SAMPLES: Final = "greedy-samples"  # the file of continuations beside those of sets; no set can be called so


def read_block_predictions(path: Path) -> pd.DataFrame | None:
    """Return the stored blocks of a set; None if the file cannot be read as such."""
    return _read(path, COLUMNS)


def _read(path: Path, columns: Iterable[str]) -> pd.DataFrame | None:
    try:
        found = pd.read_parquet(path)
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None
    return found if set(columns) <= set(found) else None


def agreed_pieces(rows: pd.DataFrame, teacher: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each block how often student and teacher hold the same piece most likely, and of how many pieces."""
    theirs = rows[TEACHERS] if TEACHERS in rows else teacher["choices"]
    agreed = [int((mine == other).sum()) for mine, other in zip(rows["choices"], theirs, strict=True)]
    return np.array(agreed), np.array([len(mine) for mine in rows["choices"]])
