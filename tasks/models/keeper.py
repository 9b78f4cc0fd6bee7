"""Keeps the checkpoints of a training stage, each measured on the validation set, and the best of them as the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tasks.data.tokens import TokenSet
from tasks.distillation.predict import predict_logits
from tasks.evaluation.quality import accuracy, kl_nats_per_example, nll_nats_per_example
from tasks.lineage.files import digest, file_sha256, read_json_lines, write_json
from tasks.lineage.scratch import Scratch
from tasks.models.better import BETTER, CLOSEST, LEARNT, MEASURED, MOST_RIGHT
from tasks.models.checkpoint import load_weights, save_classifier, weights_of
from tasks.models.devices import Device


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
