"""The measured text where a student has other tokens than its teacher: cut where the teacher's blocks are cut.

A segment is the text of one of the teacher's blocks. A student with a smaller vocabulary needs more tokens for it, so it reads a
segment in windows of a block's length, each after the first overlapping the one before by half. Letters: N segments, W windows,
T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.blocks import Blocks, block_ids
from tasks.data.byte_pairs import token_bytes
from tasks.data.tokens import encoded, load_tokenizer

FOLDER: Final = "measured"  # beside the blocks; there is none where the tokens are the teacher's


@dataclass(frozen=True)
class Windows:
    """Windows of tokens int32 (W, T), filled up with the end of text, and what of them counts: int32 (W, 3).

    Each row of `spans_W3` is the number of the segment, and the first and last + 1 of the tokens that are predicted there; over
    all windows every token of a segment but its first is predicted once.
    """

    ids_WT: Blocks
    spans_W3: NDArray[np.int32]

    def per_segment(self, values_WT: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the values of each predicted token (W, T - 1), the first being that of token 1, segment by segment."""
        parts_of: list[list[NDArray[Any]]] = [[] for _ in range(int(self.spans_W3[-1, 0]) + 1)]
        for (segment, first, stop), values in zip(self.spans_W3, values_WT, strict=True):
            parts_of[segment].append(values[first - 1 : stop - 1])
        return [np.concatenate(parts) for parts in parts_of]


def block_bytes(blocks: Blocks, tokenizer: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return the UTF-8 bytes of the tokens of each block but the first, (N,); an end of text is worth one."""
    sizes: NDArray[np.int64] = token_bytes(tokenizer)[np.asarray(blocks[:, 1:])].sum(axis=1)
    return sizes


def segments_of(blocks: Blocks, tokenizer: Mapping[str, Any], tokenizer_file: Path, end_id: int) -> pd.DataFrame:
    """Return one row a block of the teacher's: `row_id`, `texts` (parts of documents), and the `tokens` and `bytes` predicted.

    A character that the border of a block cuts becomes U+FFFD, which the student has to predict: it is not favoured.
    """
    coder = load_tokenizer(tokenizer_file)
    texts = []
    for block in blocks:
        ends = np.flatnonzero(block == end_id)
        parts = np.split(block, np.sort(np.concatenate([ends, ends + 1])))[::2]
        texts.append([coder.decode(part.tolist(), skip_special_tokens=False) for part in parts])
    tokens = np.full(len(blocks), blocks.shape[1] - 1, dtype=np.int64)
    return pd.DataFrame({"row_id": block_ids(blocks), "texts": texts, "tokens": tokens, "bytes": block_bytes(blocks, tokenizer)})


def windows_of(segments: pd.DataFrame, tokenizer_file: Path, end_id: int, block_tokens: int) -> Windows:
    """Return the segments in a student's tokens."""
    coder = load_tokenizer(tokenizer_file)
    windows, spans = [], []
    for number, texts in enumerate(segments["texts"]):
        ids = [token for part in encoded(coder, texts, special=False) for token in (*part, end_id)]
        ids.pop()  # an end of text stands between parts alone
        for start, first, stop in _cuts(len(ids), block_tokens):
            window = ids[start : start + block_tokens]
            windows.append(window + [end_id] * (block_tokens - len(window)))
            spans.append((number, first - start, stop - start))
    return Windows(np.array(windows, dtype=np.int32), np.array(spans, dtype=np.int32))


def _cuts(count: int, length: int) -> list[tuple[int, int, int]]:
    """Return for each window where it starts, and the first and last + 1 of the tokens that count in it."""
    cuts = [(0, 1, min(count, length))]
    while cuts[-1][2] < count:
        done = cuts[-1][2]
        start = min(done - length // 2, count - length)
        cuts.append((start, done, min(start + length, count)))
    return cuts


def save_segments(segments: pd.DataFrame, windows: Windows, tokens: Path, name: str) -> None:
    """Write both beside the blocks of a set."""
    folder = tokens / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    segments.to_parquet(folder / f"{name}.parquet", index=False)
    np.save(folder / f"{name}.windows.npy", windows.ids_WT)
    np.save(folder / f"{name}.spans.npy", windows.spans_W3)


def load_segments(tokens: Path, name: str) -> tuple[pd.DataFrame, Windows] | None:
    """Return what `save_segments` wrote; None where the blocks are of the teacher's tokens."""
    folder = tokens / FOLDER
    if not folder.exists():
        return None
    windows = Windows(np.load(folder / f"{name}.windows.npy"), np.load(folder / f"{name}.spans.npy"))
    return pd.read_parquet(folder / f"{name}.parquet"), windows
