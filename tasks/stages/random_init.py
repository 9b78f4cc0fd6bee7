"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

deps: rounds/<round>/{pruned,tokens}, data/sets, teacher_logits, rounds/teacher/{evaluated,trained/model}
params: seed, data, distill, evaluate, rounds.<round> | outs: rounds/<round>/random_init
Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.files import write_json
from tasks.measuring.classification import measure_sets
from tasks.measuring.subject import Subject, Teacher
from tasks.models.checkpoint import classifier_from_config, load_classifier, read_config
from tasks.models.devices import pick_for_training
from tasks.params.classification import ClassificationParams
from tasks.params.measures import row_settings
from tasks.running.stage import InPath, OutPath
from tasks.training.classification import distil
from tasks.training.teacher_cache import check_teacher


def run(
    params: ClassificationParams,
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
    """Return the accuracy on the test set, and the device it ran on."""
    check_teacher(logits, teacher)
    device = pick_for_training(params.runtime)
    torch.manual_seed(params.seed)
    student = classifier_from_config(read_config(pruned / "model"))
    trained = out / "trained"
    distil(
        params, round, student, pruned / "model", tokens, sets, logits, teacher, trained, device, f"random_init@{round}"
    )
    folder = out / "trained" / "model"
    subject = Subject(round, load_classifier(folder), folder, None, tokens, sets)
    quality = measure_sets(subject, Teacher(teacher, None, teacher_evaluated), row_settings(params), out, device)
    write_json(out / "quality.json", quality)
    return {"test_accuracy": quality["sets"]["test"]["slices"]["overall"]["accuracy"]["value"], **device.facts()}
