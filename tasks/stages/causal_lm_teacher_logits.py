"""Caches what the teacher holds most likely in the first blocks that students learn from, where distill.cache asks for it.

deps: teacher/model, blocks | params: seed, data, distill.cache | outs: teacher_logits/ with the fingerprint that `distill` checks
All its logits would be gigabytes: without the cache nothing is kept, and distillation runs the teacher beside the student.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.data.blocks import load_blocks, plan_blocks
from tasks.files import file_sha256, write_json
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import Device, pick_for_training
from tasks.models.predict import predicting
from tasks.params.causal_lm import CausalLMParams
from tasks.progress import Progress
from tasks.running.stage import InPath, OutPath
from tasks.training.attention import attend_in_short_blocks
from tasks.training.causal_lm import block_batch, head_dtype
from tasks.training.top_k import TopKFiles, best


def run(
    params: CausalLMParams,
    *,
    teacher: InPath,
    sets: InPath,  # noqa: ARG001 - the same arguments as for a classifier
    tokens: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return how many blocks were cached."""
    out.mkdir(parents=True, exist_ok=True)
    fingerprint: dict[str, Any] = {
        "teacher_sha256": file_sha256(teacher / "model.safetensors"),
        "tokenizer_sha256": file_sha256(tokens / "tokenizer.json"),
    }
    facts: dict[str, Any] = {"rows": 0}
    if params.distill.cache is not None:
        device = pick_for_training(params.runtime)
        facts = {"rows": _cache(params, teacher, tokens, out, device), **device.facts()}
        fingerprint["top_k"] = {"top_k": params.distill.cache.top_k, "blocks_sha256": file_sha256(tokens / "train.npy")}
    write_json(out / "fingerprint.json", fingerprint)
    return facts


def _cache(params: CausalLMParams, teacher: Path, tokens: Path, out: Path, device: Device) -> int:
    """Write the pieces of the first blocks in the order of training, and return of how many.

    The order is that of the seed, so a round with fewer tokens learns from the first of them.
    """
    section, cache = params.distill, params.distill.cache
    assert cache is not None
    blocks = load_blocks(tokens, "train")
    budget = min(cache.tokens, blocks.size)
    batches = plan_blocks(len(blocks), budget, blocks.shape[1], section.batch_blocks, params.seed)
    model = load_causal_lm(teacher).eval()
    device.prepare_to_read(model)
    attend_in_short_blocks(model, device)
    count = sum(map(len, batches))
    files = TopKFiles(out, np.concatenate(batches), blocks.shape[1] - 1, cache.top_k, model.config.vocab_size)
    progress = Progress("teacher_logits", count, "blocks")
    done, dtype = 0, head_dtype(device)
    with torch.inference_mode():
        for rows in batches:
            with device.autocast():
                head = predicting(model, block_batch(blocks, rows, device))
            weight_VD = head.weight_VD.to(dtype)
            chunks = head.hidden_ND.to(dtype).split(section.chunk_tokens)
            files.write(done, (best(chunk @ weight_VD.T, cache.top_k) for chunk in chunks))
            done += len(rows)
            progress.update(done)
    files.close()
    return count
