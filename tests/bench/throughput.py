"""Rows a second of a distillation: this project's loop against `transformers.Trainer` with the teacher in its loss.

Both train the same student on the same rows for one epoch with the same batch size and loss, and take turns in one
process. Ours reads cached teacher logits, buckets rows by length and uses the precision of params.yaml. The Trainer runs
the teacher under `no_grad` for each batch, pads with its own collator in shuffled data order, and keeps its defaults.
"""

from __future__ import annotations

import copy
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import TokenSet, joined, load_tokens
from tasks.models.architectures import leave_out_unread
from tasks.models.checkpoint import attend_plainly, load_classifier
from tasks.models.devices import Device, pick
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.params.file import load_params
from tasks.training.classification import TaughtRows, distil_schedule, plan_batches, rows_loss
from tasks.training.extra_losses import Extras
from tasks.training.lesson import without_dropout
from tasks.training.loop import Course, train
from tasks.training.losses import distillation_loss

Rows = list[dict[str, Any]]
TEACHER = "teacher_"  # before the names of the teacher's tokens in a batch of the Trainer


class NoStore:
    """Keeps nothing: the benchmark measures the loop alone."""

    def load(self) -> None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: dict[str, Any]) -> None:
        pass

    def record(self, line: dict[str, Any]) -> None:
        pass


def measure(workspace: Path, round_name: str, rows: int, turns: int) -> dict[str, Any]:
    """Return rows a second of both, and how many times faster ours is, as medians over `turns`."""
    params = load_params(workspace / "params.yaml")
    place = workspace / "artifacts" / "rounds"
    device = pick("cpu", params.runtime.precision, params.runtime.threads)
    student = load_classifier(place / round_name / "pruned" / "model")
    teacher = load_classifier(place / "teacher" / "trained" / "model")
    frames = read_sets(workspace / "artifacts" / "data" / "sets", ["train", "transfer"])
    labels = np.concatenate([frame["label"][:rows] for frame in frames.values()]).astype(np.int64)
    tokens, teacher_tokens = (_first(place / name / "tokens", rows) for name in (round_name, "teacher"))
    num_train = min(rows, len(frames["train"]))

    def cache() -> Any:
        return predict_logits(teacher, teacher_tokens, 64, device)

    logits = cache()
    batches = plan_batches(tokens.lengths, num_train, 1, 1.0, params.distill.batch_rows, params.seed)

    def ours() -> None:
        model = without_dropout(copy.deepcopy(student))
        attend_plainly(model, device.device)
        leave_out_unread(model, device.device)
        loss = rows_loss(params, TaughtRows(tokens, logits, labels), device, Extras([]))
        course = Course(batches, loss, distil_schedule(params, round_name))
        train(model, course, device, NoStore(), lambda *_: {}, lambda *_: None)

    records = _records(tokens, teacher_tokens, labels)
    folders = (place / round_name / "pruned" / "model", place / "teacher" / "trained" / "model")
    theirs = _trainer(params, round_name, student, teacher, records, folders)
    seconds = _alternate({"ours": ours, "trainer": theirs, "cache": cache}, turns, device)
    return _facts(seconds, len(labels), params, round_name, device)


def _first(folder: Path, rows: int) -> TokenSet:
    """Return the tokens of the first rows of train and transfer."""
    return joined(*(_head(load_tokens(folder / name), rows) for name in ("train", "transfer")))


def _head(tokens: TokenSet, rows: int) -> TokenSet:
    offsets = tokens.offsets[: rows + 1]
    return TokenSet(np.asarray(tokens.ids[: offsets[-1]]), offsets)


def _records(tokens: TokenSet, teacher_tokens: TokenSet, labels: Any) -> Rows:
    def ids(of: TokenSet, row: int) -> list[int]:
        return [int(one) for one in of.ids[of.offsets[row] : of.offsets[row + 1]]]

    return [
        {"input_ids": ids(tokens, row), f"{TEACHER}input_ids": ids(teacher_tokens, row), "labels": int(label)}
        for row, label in enumerate(labels)
    ]


def _trainer(
    params: ClassificationParams, round_name: str, student: Any, teacher: Any, records: Rows, folders: tuple[Path, Path]
) -> Callable[[], float]:
    """Return a function that trains a copy of the student with the Trainer and returns the seconds of its `train`."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    pad, pad_teacher = (DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder)) for folder in folders)

    def collate(rows: Rows) -> dict[str, Any]:
        mine = pad([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
        hers = pad_teacher([{"input_ids": row[f"{TEACHER}input_ids"]} for row in rows])
        return {**mine, **{f"{TEACHER}{key}": value for key, value in hers.items()}}

    class Distiller(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            hers = {key.removeprefix(TEACHER): inputs[key] for key in inputs if key.startswith(TEACHER)}
            with torch.no_grad():
                teacher_logits = teacher(**hers).logits
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            loss = distillation_loss(
                outputs.logits,
                teacher_logits,
                inputs["labels"],
                loss=params.distill.loss,
                temperature=params.distill.temperature,
                kd_weight=params.distill.kd_weight,
            )
            return (loss, outputs) if return_outputs else loss

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=params.distill.batch_rows,
                learning_rate=params.rounds[round_name].learning_rate,
                use_cpu=True,
                remove_unused_columns=False,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            )
            trainer = Distiller(copy.deepcopy(student), arguments, data_collator=collate, train_dataset=records)
            torch.use_deterministic_algorithms(False)  # ours asks for them; the Trainer by default does not
            try:
                began = time.perf_counter()
                trainer.train()
                return time.perf_counter() - began
            finally:
                torch.use_deterministic_algorithms(True)

    return run


def _alternate(calls: Mapping[str, Callable[[], Any]], turns: int, device: Device) -> dict[str, list[float]]:
    """Return the seconds of each call, which take turns; a call that returns a float has timed itself."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            torch.set_num_threads(device.threads)
            began = time.perf_counter()
            own = call()
            taken = own if isinstance(own, float) else time.perf_counter() - began
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    return seconds


def _facts(
    seconds: Mapping[str, list[float]], rows: int, params: ClassificationParams, round_name: str, device: Device
) -> dict[str, Any]:
    ours, theirs, cache = (seconds[name] for name in ("ours", "trainer", "cache"))
    return {
        "round": round_name,
        "rows": rows,
        "batch_rows": params.distill.batch_rows,
        "threads": device.threads,
        "turns": len(ours),
        "compactlm_precision": device.precision,
        "trainer_precision": "fp32",
        "compactlm_rows_per_second": round(rows / statistics.median(ours), 1),
        "trainer_rows_per_second": round(rows / statistics.median(theirs), 1),
        "ratio": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
        # as if the cached logits served this one epoch alone; a run uses them for every epoch of every round
        "ratio_with_cache_made_anew": round(
            statistics.median(b / (a + c) for a, b, c in zip(ours, theirs, cache, strict=True)), 2
        ),
    }
