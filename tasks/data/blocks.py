"""Token blocks of one length, packed from documents: no padding, so every position costs and teaches the same.

Documents stand one after the other, each followed by the end-of-text token, and the stream is cut every T tokens; what is
left at the end is dropped. Letters: N blocks, T tokens of a block.

Packs sets of documents into blocks of tokens: the teacher's tokens first, and those of a student with fewer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tasks.data.frames import rows_sha256
from tasks.errors import DataError
from tasks.params.causal_lm import CausalLMParams

Blocks = NDArray[np.int32]
Rows = NDArray[np.int64]
DOCUMENTS_AT_A_TIME = 2_000  # keeps memory flat whatever the number of documents


def pack(texts: Sequence[str], tokenizer_file: Path, end_id: int, block_tokens: int, most: int | None = None) -> Blocks:
    """Return the blocks of `texts` in their order, int32 (N, T); with `most`, the first so many."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    parts: list[NDArray[np.int32]] = []
    count = 0
    for start in range(0, len(texts), DOCUMENTS_AT_A_TIME):
        batch = list(texts[start : start + DOCUMENTS_AT_A_TIME])
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            parts.append(np.asarray([*encoding.ids, end_id], dtype=np.int32))
            count += len(parts[-1])
        if most is not None and count >= most * block_tokens:
            break
    stream = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    blocks = stream[: len(stream) // block_tokens * block_tokens].reshape(-1, block_tokens)
    return blocks[:most]


def save_blocks(blocks: Blocks, folder: Path, name: str) -> None:
    """Write `<folder>/<name>.npy`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", blocks)


def load_blocks(folder: Path, name: str) -> Blocks:
    """Return the blocks written by `save_blocks`, memory-mapped."""
    blocks: Blocks = np.load(folder / f"{name}.npy", mmap_mode="r")
    return blocks


def block_ids(blocks: Blocks) -> list[str]:
    """Return the name of each block: its number and 12 hex digits of the sha256 of its tokens."""
    return [f"{i:06d}-{hashlib.sha256(block.tobytes()).hexdigest()[:12]}" for i, block in enumerate(blocks)]


def plan_blocks(count: int, train_tokens: int, block_tokens: int, batch_blocks: int, seed: int) -> list[Rows]:
    """Return the batches of a training over `train_tokens` tokens, as numbers of `count` blocks: passes, each shuffled."""
    wanted = max(1, round(train_tokens / block_tokens))
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-wanted // count))])[:wanted]
    return [order[start : start + batch_blocks] for start in range(0, wanted, batch_blocks)]


def pack_sets(params: CausalLMParams, frames: dict[str, pd.DataFrame], end: int, tokens: Path) -> dict[str, Any]:
    """Write the blocks of every set, by the tokenizer that lies there, and return what there is of each."""
    section = params.data
    most: dict[str, int | None] = {
        "train": None,
        "validation": section.evaluation_blocks,
        "test": section.evaluation_blocks,
        **{name: one.blocks for name, one in section.evaluation_sets.items()},
    }
    described: dict[str, Any] = {}
    for name, frame in frames.items():
        blocks = pack(frame["text"].tolist(), tokens / "tokenizer.json", end, section.block_tokens, most[name])
        if name == "train":
            if len(blocks) < section.calibration_blocks:
                raise DataError(
                    f"data.calibration_blocks: {section.calibration_blocks} asked; train has {len(blocks)} blocks of "
                    f"{section.block_tokens} tokens. Lower it, or add documents."
                )
            save_blocks(blocks[: section.calibration_blocks], tokens, "calibration")
        if not len(blocks):
            raise DataError(f"set {name} has less than one block of {section.block_tokens} tokens; add documents")
        save_blocks(blocks, tokens, name)
        described[name] = {"rows": len(frame), "blocks": len(blocks), "tokens": int(blocks.size)}
        if name != "train":  # what is measured is tied to what was prepared; nobody asks for every training block
            described[name]["rows_sha256"] = rows_sha256(block_ids(blocks))
    return described
