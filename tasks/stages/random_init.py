"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

deps: rounds/<round>/{pruned,tokens}, data/sets, teacher_logits, rounds/teacher/{evaluated,trained/model}
params: seed, data, distill, evaluate, rounds.<round> | outs: rounds/<round>/random_init
Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.data.frames import read_sets
from tasks.data.tokens import load_tokens
from tasks.files import file_sha256, write_json
from tasks.measuring.classification import measure, measures_of, write_predictions
from tasks.models.checkpoint import classifier_from_config, load_classifier, read_config
from tasks.models.devices import pick_for_training
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.running.stage import InPath, OutPath
from tasks.stages.evaluate import BATCH_ROWS, read_predictions
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
    student = load_classifier(out / "trained" / "model")
    learnt_from = read_sets(sets, ["train", "transfer"]).values()
    how = measures_of(params.data.labels, params.evaluate.model_dump(), params.seed, learnt_from)
    entries = {}
    for name, frame in read_sets(sets, params.data.measured_sets).items():
        teacher_predictions = read_predictions(teacher_evaluated, name, frame)
        found = predict_logits(student, load_tokens(tokens / name), BATCH_ROWS, device)
        entries[name], predictions = measure(frame, found, teacher_predictions, how)
        write_predictions(predictions, out / "predictions", name)
    sha256 = file_sha256(out / "trained" / "model" / "model.safetensors")
    quality = {"round": round, "model_sha256": sha256, "confidence": how.confidence, "sets": entries}
    write_json(out / "quality.json", quality)
    return {"test_accuracy": entries["test"]["slices"]["overall"]["accuracy"]["value"], **device.facts()}
