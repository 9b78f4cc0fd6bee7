"""Trains the shape of a round from random weights with the same distillation budget: what the pruning is worth.

deps: rounds/<round>/{pruned,tokens}, the teacher, teacher_logits, rounds/teacher/evaluated
params: seed, data, distill, evaluate, rounds.<round> | outs: rounds/<round>/random_init
Runs for the rounds listed in `baselines.random_init` alone.
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, read_config
from tasks.models.devices import Device, pick_for_training
from tasks.params.causal_lm import CausalLMParams
from tasks.running.stage import InPath, OutPath
from tasks.stages.causal_lm_distill import distil
from tasks.stages.causal_lm_evaluate import measure_quality


def run(
    params: CausalLMParams,
    *,
    round: str,
    pruned: InPath,
    tokens: InPath,
    sets: InPath,  # noqa: ARG001 - their blocks are in `tokens`
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
    found = measure_quality(
        params, round, load_causal_lm(folder), folder, tokens, teacher, teacher_evaluated, out, precise
    )
    return {"test_perplexity": found["sets"]["test"]["slices"]["overall"]["perplexity"]["value"], **device.facts()}
