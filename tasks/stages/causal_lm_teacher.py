"""Trains the teacher on the training blocks, or takes it as it is (`teacher.train_tokens: 0`).

deps: fetched/teacher, data/sets, rounds/teacher/tokens | params: seed, data, teacher | outs: rounds/teacher/trained
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.files import file_sha256, write_json
from tasks.models.checkpoint import causal_lm_from_config, load_causal_lm, read_config, save_causal_lm
from tasks.models.devices import pick_for_training
from tasks.params.causal_lm import CausalLMParams
from tasks.running.preflight import check_causal_shapes
from tasks.running.stage import InPath, OutPath
from tasks.training.causal_lm import Plan, head_dtype, train_blocks
from tasks.training.chunked_loss import Recipe


def run(
    params: CausalLMParams,
    *,
    base: InPath,
    sets: InPath,  # noqa: ARG001 - their blocks are in `tokens`
    tokens: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the training, with the device it ran on."""
    config = read_config(base)
    check_causal_shapes(params, config)  # a round that cannot work is cheaper to hear of before the training
    device = pick_for_training(params.runtime)
    torch.manual_seed(params.seed)
    section = params.teacher
    model = causal_lm_from_config(config) if section.new is not None else load_causal_lm(base)
    if section.train_tokens > 0:
        recipe = Recipe("forward_kl", 1.0, 0.0, section.chunk_tokens, head_dtype(device))
        plan = Plan("teacher", section, section.learning_rate, section.train_tokens, tokens, [base])
        return {**train_blocks(params, plan, model, None, recipe, out, device), **device.facts()}
    device.processes.end_others()
    save_causal_lm(model, tokens, out / "model")
    (out / "steps.jsonl").write_text("", encoding="utf-8")
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {
        "steps": 0,
        "tokens": 0,
        "best_checkpoint": None,
        "best_validation_nll_nats_per_token": None,
        "checkpoints": [],
        "model_sha256": file_sha256(out / "model" / "model.safetensors"),
    }
    write_json(out / "summary.json", summary)
    return {**summary, **device.facts()}
