"""Keeps the checkpoints of a language model's training, each measured on the validation blocks, and the best as the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.data.blocks import Blocks
from tasks.distillation.predict_blocks import predict_blocks
from tasks.lineage.files import read_json_lines
from tasks.lineage.scratch import Scratch
from tasks.models.better import BLOCKS_NLL
from tasks.models.checkpoint import save_causal_lm
from tasks.models.devices import Device
from tasks.models.keeper import save_checkpoint, take_checkpoint, write_summary


class BlockKeeper:
    """Saves and measures checkpoints in a scratch; `finish` makes the stage's outputs of them."""

    def __init__(self, scratch: Scratch, blocks: Blocks, batch_blocks: int, chunk_tokens: int, device: Device) -> None:
        self._scratch, self._blocks, self._device = scratch, blocks, device
        self._batch_blocks, self._chunk_tokens = batch_blocks, chunk_tokens

    def checkpoint(self, model: Any, step: int) -> dict[str, Any]:
        """Save the model's weights and return its number on the validation blocks."""
        with self._device.uncompiled():
            found = predict_blocks(model, self._blocks, self._batch_blocks, self._chunk_tokens, self._device)
        return {"checkpoint": save_checkpoint(model, step, self._scratch), BLOCKS_NLL: found.nats_per_token}

    def finish(self, model: Any, tokenizer: Path, out: Path, tokens: int) -> dict[str, Any]:
        """Write model/, checkpoints/, steps.jsonl and summary.json below `out`, and return the summary.

        The best checkpoint has the lowest validation NLL; among equals the first.
        """
        records = [line for line in read_json_lines(self._scratch.steps) if "checkpoint" in line]
        best = min(records, key=lambda record: (record[BLOCKS_NLL], record["step"]))
        take_checkpoint(model, best, self._scratch, out)
        save_causal_lm(model.eval(), tokenizer, out / "model")
        return write_summary(out, records, best, BLOCKS_NLL, tokens)
