"""Speed and memory of one distillation step of a language model: ours, and a plain loop that holds all logits.

Both take the same random models of SmolLM2-135M's width, the same tokens, AdamW and autocast; only the loss differs. Each
side runs in a process of its own, so that the peak of its resident memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from typing import Any, Final

from tasks.lineage.receipts import RSS_UNIT_BYTES

TEACHER: Final[dict[str, Any]] = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
    "head_dim": 64, "intermediate_size": 1536, "num_hidden_layers": 30, "tie_word_embeddings": True,
}  # fmt: skip
FFN: Final = 1024
TOKENS: Final = 256
CHUNK_TOKENS: Final = 256


def measure(blocks: int, layers: int, teacher_layers: int, turns: int, threads: int | None) -> dict[str, Any]:
    """Return tokens a second and peak memory of both, the sides taking turns: ours, plain, ours, plain.

    Tokens a CPU second are those a second of all threads together: on a busy machine they say more than the clock.
    """
    found: dict[str, list[tuple[float, float, int]]] = {"compactlm": [], "plain": []}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(turns):
            for side in found:
                found[side].append(pool.apply(_steps, (side, blocks, layers, teacher_layers, threads)))
    facts: dict[str, Any] = {
        "blocks": blocks, "block_tokens": TOKENS, "student_layers": layers, "teacher_layers": teacher_layers, "turns": turns,
    }  # fmt: skip
    for place, kind in enumerate(("second", "cpu_second")):
        seconds = {side: statistics.median(run[place] for run in runs) for side, runs in found.items()}
        for side in found:
            facts[f"{side}_tokens_per_{kind}"] = round(blocks * TOKENS / seconds[side], 1)
        facts[f"ratio_tokens_per_{kind}"] = round(seconds["plain"] / seconds["compactlm"], 2)
    for side, runs in found.items():
        facts[f"{side}_peak_memory_bytes"] = max(peak for *_, peak in runs)
    return facts


def _steps(side: str, blocks: int, layers: int, teacher_layers: int, threads: int | None) -> tuple[float, float, int]:
    """Return seconds and CPU seconds of the second of two steps, and the most resident memory that this process had."""
    import torch

    from tasks.causal.training import head_dtype
    from tasks.distillation.causal import Recipe, causal_loss, next_tokens, predicting
    from tasks.distillation.train import Schedule, make_optimiser
    from tasks.models.checkpoint import causal_lm_from_config
    from tasks.models.devices import pick

    device = pick("cpu", "auto", threads)
    torch.manual_seed(0)
    teacher = causal_lm_from_config({**TEACHER, "num_hidden_layers": teacher_layers})
    student = causal_lm_from_config({**TEACHER, "intermediate_size": FFN, "num_hidden_layers": layers}).train()
    optimiser = make_optimiser(student, Schedule(1e-4, 0.0, 0.01, 1.0, 1, 0), device)
    ids = torch.randint(0, TEACHER["vocab_size"], (blocks, TOKENS))
    recipe = Recipe("forward_kl", 1.0, 1.0, CHUNK_TOKENS, head_dtype(device))

    def chunked() -> torch.Tensor:
        with torch.no_grad():
            others = predicting(teacher, ids)
        return causal_loss(predicting(student, ids), others, next_tokens(ids), recipe)

    def plain() -> torch.Tensor:
        with torch.no_grad():
            others = teacher(input_ids=ids, use_cache=False).logits[:, :-1]
        logits = student(input_ids=ids, use_cache=False).logits[:, :-1]
        return torch.nn.functional.kl_div(
            logits.float().log_softmax(-1).flatten(0, 1), others.float().log_softmax(-1).flatten(0, 1),
            reduction="batchmean", log_target=True,
        )  # fmt: skip

    seconds, cpu_seconds = 0.0, 0.0
    for _ in range(2):  # the first makes the optimiser's state
        began, cpu_began = time.perf_counter(), time.process_time()
        with device.autocast():
            loss = (chunked if side == "compactlm" else plain)()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES
