"""Keeps the checkpoints of a training stage, each measured on the validation set, and the best of them as the model.

Keeps the checkpoints of a language model's training, each measured on the validation blocks, and the best as the model.

The metrics by which trainings choose their best checkpoint, and which way each is better; light, for who only reads them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tasks.artifacts import MEASURED
from tasks.data.blocks import Blocks
from tasks.data.tokens import TokenSet
from tasks.files import digest, file_sha256, read_json_lines, write_json
from tasks.measuring.quality import accuracy, kl_nats_per_example, nll_nats_per_example
from tasks.models.checkpoint import load_weights, save_causal_lm, save_classifier, weights_of
from tasks.models.devices import Device
from tasks.models.predict import predict_blocks, predict_logits
from tasks.training.scratch import Scratch


class Keeper:
    """Saves and measures checkpoints in a scratch; `finish` makes the stage's outputs of them."""

    def __init__(
        self,
        scratch: Scratch,
        tokens: TokenSet,
        labels: NDArray[np.int64],
        rows: int,
        device: Device,
        teacher_logits: NDArray[np.float32] | None = None,
        learnt: tuple[TokenSet, NDArray[np.float32]] | None = None,
    ) -> None:
        """Take the validation rows, and for a student what its teacher says of them and of some rows it trains on."""
        self._scratch, self._tokens, self._labels, self._rows, self._device = scratch, tokens, labels, rows, device
        self._teacher_logits, self._learnt = teacher_logits, learnt

    def checkpoint(self, model: Any, step: int) -> dict[str, Any]:
        """Save the model's weights and return its numbers on the validation set, of a student also on rows it trains on."""
        logits = predict_logits(model, self._tokens, self._rows, self._device)
        imitation: dict[str, float] = {}
        if self._teacher_logits is not None:
            imitation = {CLOSEST: kl_nats_per_example(logits, self._teacher_logits)}
        if self._learnt is not None:
            tokens, teacher_logits = self._learnt
            answers = predict_logits(model, tokens, self._rows, self._device)
            imitation[LEARNT] = kl_nats_per_example(answers, teacher_logits)
        return {
            "checkpoint": save_checkpoint(model, step, self._scratch),
            **imitation,
            "validation_accuracy": accuracy(self._labels, logits.argmax(axis=1)),
            "validation_nll_nats_per_example": nll_nats_per_example(logits, self._labels),
        }

    def finish(self, model: Any, tokenizer: Path, out: Path, tokens: int) -> dict[str, Any]:
        """Write model/, checkpoints/, steps.jsonl and summary.json below `out`, and return the summary.

        The best checkpoint of a student is the closest to its teacher on the validation set: that is what it learns, and it
        is told from far fewer rows than accuracy, of which a few rows decide between checkpoints that differ much. Without
        a teacher it is the one with the highest accuracy. Among equals the lowest validation NLL counts, then the first.
        """
        records = [line for line in read_json_lines(self._scratch.steps) if "checkpoint" in line]
        metric = MOST_RIGHT if self._teacher_logits is None else CLOSEST
        best = min(records, key=lambda r: (BETTER[metric] * r[metric], r["validation_nll_nats_per_example"], r["step"]))
        take_checkpoint(model, best, self._scratch, out)
        save_classifier(model.eval(), tokenizer, out / "model")
        return write_summary(out, records, best, metric, tokens)


def save_checkpoint(model: Any, step: int, scratch: Scratch) -> str:
    """Save the model's weights in the scratch and return the name of the checkpoint."""
    name = f"step-{step:06d}"
    folder = scratch.checkpoints / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights_of(model), folder / "model.safetensors", metadata={"format": "pt"})
    return name


def take_checkpoint(model: Any, record: dict[str, Any], scratch: Scratch, out: Path) -> None:
    """Write checkpoints/ and steps.jsonl below `out`, and give the model the weights of a checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(scratch.checkpoints, out / "checkpoints", dirs_exist_ok=True)
    shutil.copyfile(scratch.steps, out / "steps.jsonl")
    load_weights(model, load_file(out / "checkpoints" / record["checkpoint"] / "model.safetensors"))


def write_summary(
    out: Path, records: list[dict[str, Any]], best: dict[str, Any], metric: str, tokens: int
) -> dict[str, Any]:
    """Write summary.json below `out`, whose model is the `best` of the records by `metric`, and return it."""
    summary = {
        "steps": records[-1]["step"],
        "tokens": tokens,
        "best_checkpoint": best["checkpoint"],
        f"best_{metric}": best[metric],
        "checkpoints": [_described(record, out) for record in records],
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
    }
    write_json(out / "summary.json", summary)
    return summary


def _described(record: dict[str, Any], out: Path) -> dict[str, Any]:
    weights = out / "checkpoints" / record["checkpoint"] / "model.safetensors"
    numbers = {key: record[key] for key in record if key.startswith(MEASURED)}
    return {"name": record["checkpoint"], "step": record["step"], **digest(weights), **numbers}


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


CLOSEST: Final = "validation_kl_nats_per_example"  # of the teacher from the student: the mean over rows of forward KL
LEARNT: Final = "learnt_kl_nats_per_example"  # the same of rows it trains on; far below CLOSEST it knows them by heart
MOST_RIGHT: Final = "validation_accuracy"
BLOCKS_NLL: Final = "validation_nll_nats_per_token"  # of language models
BETTER: Final = {CLOSEST: 1, MOST_RIGHT: -1, BLOCKS_NLL: 1}  # the sign that makes the best the smallest
