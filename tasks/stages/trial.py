"""Trains a candidate of a round with `search` for a short time, on transfer rows alone, so that it can be ranked."""

from __future__ import annotations

import shutil
from typing import Any

from tasks.data.frames import read_sets
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick_for_training
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath
from tasks.training.classification import distil
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import check_teacher


def run(
    params: ClassificationParams,
    *,
    round: str,
    candidate: str,
    pruned: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the short training, whose weights are not kept, with the device it ran on."""
    check_teacher(logits, teacher)
    start, job = pruned / "model", Job(f"trial@{round}-{candidate}", out, pick_for_training(params.runtime))
    short = short_params(params, round, len(read_sets(sets, ["transfer"])["transfer"]))
    student = Student(load_classifier(start), start)
    summary = distil(short, round, student, Lesson(sets, tokens, logits, teacher), job)
    # To rank it takes the curve; a finished candidate starts from its pruned weights.
    for folder in ("model", "checkpoints"):
        shutil.rmtree(out / folder)
    return {**summary, **job.device.facts()}


def short_params(params: ClassificationParams, name: str, transfer_rows: int) -> ClassificationParams:
    """Return the params with which a candidate of a round is tried: its transfer rows alone, one checkpoint at the end.

    A round with `search` masks no weights, and has no schedule of masks.
    """
    target = params.rounds[name]
    assert target.search is not None
    passes = target.search.transfer_rows / transfer_rows
    budget = {"labelled_epochs": 0, "transfer_epochs": passes, "schedule": None}
    return params.model_copy(
        update={
            "distill": params.distill.model_copy(update={"checkpoints": 1}),
            "rounds": {**params.rounds, name: target.model_copy(update=budget)},
        }
    )
