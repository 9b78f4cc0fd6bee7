"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from tasks.files import write_json
from tasks.measuring import causal_lm as measure_causal_lm
from tasks.measuring import classification as measure_classification
from tasks.measuring.subject import Subject, Teacher
from tasks.models.checkpoint import causal_lm_from_config, classifier_from_config, load_causal_lm, load_classifier, read_config
from tasks.models.devices import pick_for_training
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.measures import SETTINGS
from tasks.running.stage import InPath, OutPath
from tasks.training import causal_lm, classification
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import check_teacher

ByTask = Mapping[str, Callable[..., Any]]
FROM_CONFIG: Final[ByTask] = {CLASSIFICATION: classifier_from_config, CAUSAL_LM: causal_lm_from_config}
LOAD: Final[ByTask] = {CLASSIFICATION: load_classifier, CAUSAL_LM: load_causal_lm}
DISTIL: Final[ByTask] = {CLASSIFICATION: classification.distil, CAUSAL_LM: causal_lm.distil}
MEASURES: Final[ByTask] = {CLASSIFICATION: measure_classification.measure_sets, CAUSAL_LM: measure_causal_lm.measure_sets}
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
    device, start, folder = pick_for_training(params.runtime), pruned / "model", out / "trained" / "model"
    torch.manual_seed(params.seed)
    student = Student(FROM_CONFIG[params.task](read_config(start)), start)
    lesson, job = Lesson(sets, tokens, logits, teacher), Job(f"random_init@{round}", out / "trained", device)
    DISTIL[params.task](params, round, student, lesson, job)
    subject = Subject(round, LOAD[params.task](folder), folder, None, tokens, sets)
    beside = Teacher(teacher, None, teacher_evaluated)
    precise = replace(device, precision="fp32")  # as `evaluate` measures every other model
    quality = MEASURES[params.task](subject, beside, SETTINGS[params.task](params), out, precise)
    write_json(out / "quality.json", quality)
    metric = HEADLINE[params.task]
    return {f"test_{metric}": quality["sets"]["test"]["slices"]["overall"][metric]["value"], **device.facts()}
