"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import load_tokens
from tasks.files import file_sha256, write_json
from tasks.measuring.classification import measure, measures_of, write_predictions
from tasks.models.checkpoint import (
    causal_lm_from_config,
    classifier_from_config,
    load_causal_lm,
    load_classifier,
    read_config,
)
from tasks.models.devices import Device, pick_for_training
from tasks.models.predict import predict_logits
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath
from tasks.stages.causal_lm_evaluate import measure_quality
from tasks.stages.evaluate import BATCH_ROWS, read_predictions
from tasks.training import causal_lm, classification
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import check_teacher

Facts = Callable[..., dict[str, Any]]
FROM_CONFIG: Final = {CLASSIFICATION: classifier_from_config, CAUSAL_LM: causal_lm_from_config}
DISTIL: Final[Mapping[str, Facts]] = {CLASSIFICATION: classification.distil, CAUSAL_LM: causal_lm.distil}
HEADLINE: Final = {CLASSIFICATION: "accuracy", CAUSAL_LM: "perplexity"}


def run(
    params: Params,
    *,
    round: str,
    pruned: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    teacher_evaluated: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the accuracy or the perplexity on the test set, and the device it ran on."""
    check_teacher(logits, teacher)
    device, start = pick_for_training(params.runtime), pruned / "model"
    torch.manual_seed(params.seed)
    student = Student(FROM_CONFIG[params.task](read_config(start)), start)
    lesson, job = Lesson(sets, tokens, logits, teacher), Job(f"random_init@{round}", out / "trained", device)
    DISTIL[params.task](params, round, student, lesson, job)
    entries = MEASURE[params.task](params, round, lesson, teacher_evaluated, out, device)["sets"]
    metric = HEADLINE[params.task]
    return {f"test_{metric}": entries["test"]["slices"]["overall"][metric]["value"], **device.facts()}


# From here on: what `measure_sets` of tasks/measuring/classification.py and causal_lm.py takes the place of.
def _measure_classifier(
    params: ClassificationParams, round_name: str, lesson: Lesson, teacher_evaluated: Path, out: Path, device: Device
) -> dict[str, Any]:
    folder = out / "trained" / "model"
    student, learnt_from = load_classifier(folder), read_sets(lesson.sets, ["train", "transfer"]).values()
    how = measures_of(params.data.labels, params.evaluate.model_dump(), params.seed, learnt_from)
    entries = {}
    for name, frame in read_sets(lesson.sets, params.data.measured_sets).items():
        teacher_predictions = read_predictions(teacher_evaluated, name, frame)
        answers = predict_logits(student, load_tokens(lesson.tokens / name), BATCH_ROWS, device)
        entries[name], predictions = measure(frame, answers, teacher_predictions, how)
        write_predictions(predictions, out / "predictions", name)
    sha256 = file_sha256(folder / "model.safetensors")
    quality = {"round": round_name, "model_sha256": sha256, "confidence": how.confidence, "sets": entries}
    write_json(out / "quality.json", quality)
    return quality


def _measure_causal_lm(
    params: CausalLMParams, round_name: str, lesson: Lesson, teacher_evaluated: Path, out: Path, device: Device
) -> dict[str, Any]:
    folder, precise = out / "trained" / "model", Device(device.device, "fp32", device.threads)
    places = (folder, lesson.tokens, lesson.teacher, teacher_evaluated, out)
    return measure_quality(params, round_name, load_causal_lm(folder), *places, precise)


MEASURE: Final[Mapping[str, Facts]] = {CLASSIFICATION: _measure_classifier, CAUSAL_LM: _measure_causal_lm}
