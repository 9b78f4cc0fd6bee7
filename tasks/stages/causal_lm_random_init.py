"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

deps: rounds/<round>/{pruned,tokens}, the teacher, teacher_logits, rounds/teacher/evaluated
params: seed, data, distill, evaluate, rounds.<round> | outs: rounds/<round>/random_init
Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.files import write_json
from tasks.measuring.causal_lm import measure_sets
from tasks.measuring.subject import Subject, Teacher
from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, read_config
from tasks.models.devices import Device, pick_for_training
from tasks.params.causal_lm import CausalLMParams
from tasks.params.measures import block_settings
from tasks.running.stage import InPath, OutPath
from tasks.stages.causal_lm_distill import distil


def run(
    params: CausalLMParams,
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
    """Return the perplexity on the test set, and the device it ran on."""
    device = pick_for_training(params.runtime)
    torch.manual_seed(params.seed)
    student = causal_lm_from_config(read_config(pruned / "model"))
    places = (tokens, logits, teacher)
    distil(params, round, student, pruned / "model", places, out / "trained", device, f"random_init@{round}")
    folder = out / "trained" / "model"
    precise = Device(device.device, "fp32", device.threads)
    subject = Subject(round, load_causal_lm(folder), folder, None, tokens, sets)
    found = measure_sets(subject, Teacher(teacher, None, teacher_evaluated), block_settings(params), out, precise)
    write_json(out / "quality.json", found)
    return {"test_perplexity": found["sets"]["test"]["slices"]["overall"]["perplexity"]["value"], **device.facts()}
