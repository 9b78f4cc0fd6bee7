"""Keeps the checkpoints of a training, each measured on the validation set, and makes the best of them the model."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tasks.data.blocks import Blocks
from tasks.data.tokens import TokenSet
from tasks.files import digest, file_sha256, read_json_lines, write_json
from tasks.measuring.quality import accuracy, kl_nats_per_example, nll_nats_per_example
from tasks.models.checkpoint import load_weights, save_causal_lm, save_classifier, weights_of
from tasks.models.devices import Device
from tasks.models.predict import predict_blocks, predict_logits
from tasks.training.metrics import BETTER, BLOCKS_NLL, CLOSEST, LEARNT, MEASURED, MOST_RIGHT, ROWS_NLL
from tasks.training.scratch import Scratch


class Keeper(ABC):
    """Saves and measures checkpoints in a scratch; `finish` makes the stage's outputs of them."""

    metric: str  # which chooses the best checkpoint; among equals the smallest `ties` counts, then the first
    ties: str

    def __init__(self, scratch: Scratch, device: Device) -> None:
        self.scratch, self._device = scratch, device

    @abstractmethod
    def measured(self, model: Any) -> dict[str, float]:
        """Return the model's numbers on the validation set, by their names in steps.jsonl."""

    @abstractmethod
    def save(self, model: Any, tokenizer_folder: Path, out: Path) -> None:
        """Write a model and the tokenizer of a folder as a stock Hugging Face folder."""

    def checkpoint(self, model: Any, step: int) -> dict[str, Any]:
        """Save the model's weights and return their name and the model's numbers."""
        name = f"step-{step:06d}"
        folder = self.scratch.checkpoints / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights_of(model), folder / "model.safetensors", metadata={"format": "pt"})
        return {"checkpoint": name, **self.measured(model)}

    def finish(self, model: Any, tokenizer: Path, out: Path, tokens: int) -> dict[str, Any]:
        """Write model/, checkpoints/, steps.jsonl and summary.json below `out`, and return the summary.

        `tokens` are those that the training has read.
        """
        records = [line for line in read_json_lines(self.scratch.steps) if "checkpoint" in line]
        best = min(records, key=lambda r: (BETTER[self.metric] * r[self.metric], r[self.ties], r["step"]))
        out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.scratch.checkpoints, out / "checkpoints", dirs_exist_ok=True)
        shutil.copyfile(self.scratch.steps, out / "steps.jsonl")
        load_weights(model, load_file(out / "checkpoints" / best["checkpoint"] / "model.safetensors"))
        self.save(model.eval(), tokenizer, out / "model")
        return _write_summary(out, records, best, self.metric, tokens)


class RowKeeper(Keeper):
    """Measures a classifier on labelled rows, and a student against its teacher.

    The best checkpoint of a student is the closest to its teacher on the validation set: that is what it learns, and it
    is told from far fewer rows than accuracy, of which a few rows decide between checkpoints that differ much. Without
    a teacher it is the one with the highest accuracy.
    """

    ties = ROWS_NLL
    save = staticmethod(save_classifier)

    def __init__(
        self,
        scratch: Scratch,
        device: Device,
        tokens: TokenSet,
        labels: NDArray[np.int64],
        rows: int,
        teacher_logits: NDArray[np.float32] | None = None,
        learnt: tuple[TokenSet, NDArray[np.float32]] | None = None,
    ) -> None:
        """Take the validation rows, and for a student what its teacher says of them and of some rows it trains on."""
        super().__init__(scratch, device)
        self._tokens, self._labels, self._rows = tokens, labels, rows
        self._teacher_logits, self._learnt = teacher_logits, learnt
        self.metric = MOST_RIGHT if teacher_logits is None else CLOSEST

    def measured(self, model: Any) -> dict[str, float]:
        """Return accuracy and NLL on the validation set, of a student also its distance from the teacher."""
        logits = predict_logits(model, self._tokens, self._rows, self._device)
        imitation: dict[str, float] = {}
        if self._teacher_logits is not None:
            imitation[CLOSEST] = kl_nats_per_example(logits, self._teacher_logits)
        if self._learnt is not None:
            tokens, teacher_logits = self._learnt
            answers = predict_logits(model, tokens, self._rows, self._device)
            imitation[LEARNT] = kl_nats_per_example(answers, teacher_logits)
        numbers = {
            MOST_RIGHT: accuracy(self._labels, logits.argmax(axis=1)),
            ROWS_NLL: nll_nats_per_example(logits, self._labels),
        }
        return {**imitation, **numbers}


class BlockKeeper(Keeper):
    """Measures a language model on validation blocks; the best checkpoint has the lowest NLL."""

    metric = ties = BLOCKS_NLL
    save = staticmethod(save_causal_lm)

    def __init__(self, scratch: Scratch, device: Device, blocks: Blocks, batch_blocks: int, chunk_tokens: int) -> None:
        super().__init__(scratch, device)
        self._blocks, self._batch_blocks, self._chunk_tokens = blocks, batch_blocks, chunk_tokens

    def measured(self, model: Any) -> dict[str, float]:
        """Return the nats a token of the validation blocks."""
        with self._device.uncompiled():
            predicted = predict_blocks(model, self._blocks, self._batch_blocks, self._chunk_tokens, self._device)
        return {BLOCKS_NLL: predicted.nats_per_token}


def keep_as_it_is(out: Path, metric: str) -> dict[str, Any]:
    """Write what a training of no steps leaves beside the `model` in `out`, and return its summary."""
    (out / "steps.jsonl").write_text("", encoding="utf-8")
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    return _write_summary(out, [], {}, metric, 0)


def _write_summary(
    out: Path, records: Sequence[Mapping[str, Any]], best: Mapping[str, Any], metric: str, tokens: int
) -> dict[str, Any]:
    """Write summary.json below `out`, whose model is the `best` of the records by `metric`, and return it."""
    summary = {
        "steps": records[-1]["step"] if records else 0,
        "tokens": tokens,
        "best_checkpoint": best.get("checkpoint"),
        f"best_{metric}": best.get(metric),
        "checkpoints": [_described(record, out) for record in records],
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
    }
    write_json(out / "summary.json", summary)
    return summary


def _described(record: Mapping[str, Any], out: Path) -> dict[str, Any]:
    weights = out / "checkpoints" / record["checkpoint"] / "model.safetensors"
    numbers = {key: record[key] for key in record if key.startswith(MEASURED)}
    return {"name": record["checkpoint"], "step": record["step"], **digest(weights), **numbers}
