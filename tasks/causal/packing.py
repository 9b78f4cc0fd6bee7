"""Packs sets of documents into blocks of tokens: the teacher's tokens first, and those of a student with fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.blocks import block_ids, pack, save_blocks
from tasks.data.frames import rows_sha256
from tasks.errors import DataError
from tasks.params_causal import CausalParams


def pack_sets(params: CausalParams, frames: dict[str, pd.DataFrame], end: int, tokens: Path) -> dict[str, Any]:
    """Write the blocks of every set, by the tokenizer that lies there, and return what there is of each."""
    section = params.data
    most: dict[str, int | None] = {
        "train": None, "validation": section.evaluation_blocks, "test": section.evaluation_blocks,
        **{name: one.blocks for name, one in section.evaluation_sets.items()},
    }  # fmt: skip
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
