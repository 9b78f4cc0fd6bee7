"""Speed and memory of one distillation step of a language model: ours, and a plain loop that holds all logits.

Ours with the teacher beside the student, compiled (`runtime.compile: auto`, as in params/smollm2.yaml) and as it is written,
and with its cached pieces, the making of the cache counted as shared by `ROUNDS` rounds. All take the same random models of
SmolLM2-135M's width, the same tokens, AdamW, autocast and threads. Ours is the loop of the stage `distill`. Each side runs in a
process of its own, so that the peak of its resident memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

from tasks.lineage.receipts import RSS_UNIT_BYTES

TEACHER: Final[dict[str, Any]] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "tie_word_embeddings": True,
}
FFN: Final = 1024
TOKENS: Final = 256
CHUNK_TOKENS: Final = 256
PARTS: Final = {"beside": 2, "cached": 2, "uncompiled": 4}  # of a batch; compiled code holds less of one
STEPS: Final = 4  # of a turn; the first compile, and make the optimiser's state and the C library's pools of memory
COUNTED: Final = 2  # of these, the last
TOP_K: Final = 128
ROUNDS: Final = 2  # that learn from one cache
PEAK_SIDE: Final = 2048  # of the square matrices whose product tells the machine's peak
PEAK_SECONDS: Final = 2.0


def measure(blocks: int, layers: int, teacher_layers: int, turns: int, threads: int | None) -> dict[str, Any]:
    """Return tokens a second and peak memory of each side, taking turns: one after the other, and again.

    Tokens a CPU second are those a second of all threads together: on a busy machine they say more than the clock. The share of
    the peak is of our side: products with weights alone, forward of the teacher, forward and backward of the student.
    """
    found: dict[str, list[tuple[float, float, int]]] = {side: [] for side in SIDES}
    peaks = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(turns):
            peaks.append(pool.apply(_gemm_flops_per_second, (threads,)))
            for side in found:
                found[side].append(pool.apply(_steps, (side, blocks, layers, teacher_layers, threads)))
    facts: dict[str, Any] = {
        "blocks": blocks,
        "block_tokens": TOKENS,
        "student_layers": layers,
        "teacher_layers": teacher_layers,
        "turns": turns,
        "compiled": _device("beside", threads).compiled,
    }
    for place, kind in enumerate(("second", "cpu_second")):
        seconds = {side: statistics.median(run[place] for run in runs) for side, runs in found.items()}
        for side in found:
            facts[f"{side}_tokens_per_{kind}"] = round(blocks * TOKENS / seconds[side], 1)
        for side in ("beside", "uncompiled"):
            facts[f"ratio_{side}_per_{kind}"] = round(seconds["plain"] / seconds[side], 2)
        cached = seconds["cached"] + seconds["making_cache"] / ROUNDS
        facts[f"ratio_cached_{ROUNDS}_rounds_per_{kind}"] = round(seconds["plain"] / cached, 2)
    for side, runs in found.items():
        facts[f"{side}_peak_memory_bytes"] = max(peak for *_, peak in runs)
    flops = 2 * _weights(TEACHER["intermediate_size"], teacher_layers) + 6 * _weights(FFN, layers)
    facts["gemm_flops_per_token"] = flops
    facts["bf16_gemm_peak_flops_per_second"] = round(statistics.median(peaks))
    reached = flops * facts["beside_tokens_per_second"]
    facts["share_of_gemm_peak"] = round(reached / facts["bf16_gemm_peak_flops_per_second"], 3)
    return facts


def _weights(ffn: int, layers: int) -> int:
    """Return how many weights a token is multiplied with: those of the layers and of the head."""
    hidden, kv = TEACHER["hidden_size"], TEACHER["num_key_value_heads"] * TEACHER["head_dim"]
    return layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * ffn) + hidden * TEACHER["vocab_size"]


def _gemm_flops_per_second(threads: int | None) -> float:
    """Return what products of large bf16 matrices reach on the threads of the trainings."""
    import torch

    from tasks.models.devices import pick

    pick("cpu", "auto", threads)
    one = torch.randn(PEAK_SIDE, PEAK_SIDE).bfloat16()
    one @ one
    began, done = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < PEAK_SECONDS:
        one @ one
        done += 1
    return 2.0 * PEAK_SIDE**3 * done / seconds


def _steps(side: str, blocks: int, layers: int, teacher_layers: int, threads: int | None) -> tuple[float, float, int]:
    """Return seconds and CPU seconds of a later step, and the most resident memory that this process had."""
    import torch

    from tasks.models.checkpoint import causal_lm_from_config

    torch.manual_seed(0)
    ids = torch.randint(0, TEACHER["vocab_size"], (blocks, TOKENS))
    teacher = student = None
    if side != "cached":
        teacher = causal_lm_from_config({**TEACHER, "num_hidden_layers": teacher_layers})
    if side != "making_cache":
        student = causal_lm_from_config({**TEACHER, "intermediate_size": FFN, "num_hidden_layers": layers})
    times = [(time.perf_counter(), time.process_time())]

    def on_step(*_: Any) -> None:
        times.append((time.perf_counter(), time.process_time()))

    SIDES[side](side, teacher, student, ids, threads, on_step)
    last = [[later - former for former, later in zip(*pair, strict=True)] for pair in pairwise(times)][-COUNTED:]
    seconds, cpu_seconds = (min(of) for of in zip(*last, strict=True))
    return seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES


def _device(side: str, threads: int | None) -> Any:
    """Return where ours works, as params/smollm2.yaml has it but for the compiler of one side."""
    from tasks.models.devices import pick_for_training
    from tasks.params.base import Runtime

    compiled: Any = False if side == "uncompiled" else "auto"
    return pick_for_training(Runtime(device="cpu", precision="auto", threads=threads, launcher=None, compile=compiled))


def _ours(side: str, teacher: Any, student: Any, ids: Any, threads: int | None, on_step: Callable[..., None]) -> None:
    """Train as the stage `distill` does, with its own loop; without a teacher from pieces that one could have said."""
    import numpy as np
    import torch

    from tasks.training.causal_lm import Imitated, blocks_loss, head_dtype
    from tasks.training.chunked_loss import Recipe
    from tasks.training.loop import Course, Schedule, train
    from tasks.training.top_k import TopK

    device = _device(side, threads)
    recipe = Recipe("forward_kl", 1.0, 1.0, CHUNK_TOKENS, head_dtype(device))
    imitated = Imitated(teacher)
    if teacher is None:
        places = (len(ids), TOKENS - 1)
        pieces = torch.randint(0, TEACHER["vocab_size"] // TOP_K, (*places, TOP_K)) + torch.arange(TOP_K) * (
            TEACHER["vocab_size"] // TOP_K
        )
        shares = torch.randn((*places, TOP_K + 1)).log_softmax(dim=-1)

        class Cached:
            def of(self, rows: Any, _device: Any) -> TopK:
                return TopK(pieces[rows].flatten(0, 1), shares[rows].flatten(0, 1))

        imitated = Imitated(cached=Cached())  # type: ignore[arg-type]
    loss = blocks_loss(student, imitated, recipe, device, lambda rows: ids[rows])
    schedule = Schedule(1e-4, 0.0, 0.01, 1.0, 1, 0, accumulate=PARTS[side])
    course = Course([np.arange(len(ids))] * STEPS, loss, schedule)
    train(student, course, device, _NoStore(), lambda *_: {}, on_step)


def _cache(side: str, teacher: Any, _student: Any, ids: Any, threads: int | None, on_step: Callable[..., None]) -> None:
    """Find the best pieces as the stage `teacher_logits` does."""
    import torch

    from tasks.models.predict import predicting
    from tasks.training.attention import attend_in_short_blocks
    from tasks.training.causal_lm import head_dtype
    from tasks.training.top_k import best

    device = _device(side, threads)
    device.prepare_to_read(teacher)
    attend_in_short_blocks(teacher, device)
    dtype = head_dtype(device)
    with torch.inference_mode():
        for step in range(STEPS):
            with device.autocast():
                head = predicting(teacher, ids)
            weight_VD = head.weight_VD.to(dtype)
            for chunk in head.hidden_ND.to(dtype).split(CHUNK_TOKENS):
                best(chunk @ weight_VD.T, TOP_K)
            on_step(step, 0.0)


class _NoStore:
    """A training that is never killed."""

    def load(self) -> None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing is due")

    def record(self, line: dict[str, Any]) -> None:
        pass


def _plain(_side: str, teacher: Any, student: Any, ids: Any, threads: int | None, on_step: Callable[..., None]) -> None:
    """Train as one writes it down: both models' logits of the whole batch, PyTorch and its settings as they come."""
    import torch

    from tasks.models.devices import has_fast_bf16, usable_cores

    torch.set_num_threads(threads or usable_cores())
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.01)
    student.train()
    for step in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16(torch.device("cpu"))):
            with torch.no_grad():
                others = teacher(input_ids=ids, use_cache=False).logits[:, :-1]
            logits = student(input_ids=ids, use_cache=False).logits[:, :-1]
            loss = torch.nn.functional.kl_div(
                logits.float().log_softmax(-1).flatten(0, 1),
                others.float().log_softmax(-1).flatten(0, 1),
                reduction="batchmean",
                log_target=True,
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        on_step(step, loss)


SIDES: Final[dict[str, Callable[..., None]]] = {
    "beside": _ours,
    "uncompiled": _ours,
    "cached": _ours,
    "making_cache": _cache,
    "plain": _plain,
}
