"""Token blocks of one length, packed from documents: no padding, so every position costs and teaches the same.

Documents stand one after the other, each followed by the end-of-text token, and the stream is cut every T tokens; what is
left at the end is dropped. Letters: N blocks, T tokens of a block.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.frames import rows_sha256
from tasks.data.tokens import encoded, load_tokenizer
from tasks.errors import DataError

Blocks = NDArray[np.int32]
Rows = NDArray[np.int64]


def pack(texts: Sequence[str], tokenizer_file: Path, end_id: int, block_tokens: int, most: int | None = None) -> Blocks:
    """Return the blocks of `texts` in their order, int32 (N, T); with `most`, the first so many."""
    stream = array("i")
    for ids in encoded(load_tokenizer(tokenizer_file), texts, special=False):
        stream.extend((*ids, end_id))
        if most is not None and len(stream) >= most * block_tokens:
            break
    whole = len(stream) // block_tokens * block_tokens
    return np.array(stream, dtype=np.int32)[:whole].reshape(-1, block_tokens)[:most]


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


def pack_sets(
    data: Mapping[str, Any], frames: Mapping[str, pd.DataFrame], end_id: int, tokens: Path
) -> dict[str, dict[str, Any]]:
    """Write the blocks of every set, by the tokenizer that lies in `tokens`, and return what there is of each.

    `data` is the section data of params.yaml as plain values: train is packed whole, other sets up to the blocks asked for.
    """
    length, calibration = data["block_tokens"], data["calibration_blocks"]
    most = dict.fromkeys(("validation", "test"), data["evaluation_blocks"])
    most |= {name: further["blocks"] for name, further in data["evaluation_sets"].items()}
    described: dict[str, dict[str, Any]] = {}
    for name, frame in frames.items():
        blocks = pack(frame["text"].tolist(), tokens / "tokenizer.json", end_id, length, most.get(name))
        if name == "train":
            if len(blocks) < calibration:
                raise DataError(
                    f"data.calibration_blocks: {calibration} asked; train has {len(blocks)} blocks of {length} tokens. "
                    "Lower it, or add documents."
                )
            save_blocks(blocks[:calibration], tokens, "calibration")
        if not len(blocks):
            raise DataError(f"set {name} has less than one block of {length} tokens; add documents")
        save_blocks(blocks, tokens, name)
        described[name] = {"rows": len(frame), "blocks": len(blocks), "tokens": int(blocks.size)}
        if name != "train":  # what is measured is tied to what was prepared; nobody asks for every training block
            described[name]["rows_sha256"] = rows_sha256(block_ids(blocks))
    return described
