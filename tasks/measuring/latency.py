"""Student and teacher timed against each other, in torch and in ONNX Runtime.

Text from a language model: greedy continuations, and the time of one further token with a key-value cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.exports.onnx import OnnxClassifier
from tasks.measuring.cost import latency_record, random_batch, time_interleaved
from tasks.progress import say

LATENCY_THREADS: Final = 1  # what a service gives one request; more threads would hide the work behind waiting
Batch = NDArray[np.int64]
Call = Callable[[], object]


def compare_latencies(
    student: Any,
    teacher: Any,
    files: Mapping[str, tuple[Path, Path]],
    batches: Sequence[int],
    tokens: int,
    repeats: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return format -> batch size -> LATENCY of cost.json, student and teacher taking turns on one thread.

    `files` gives for each ONNX format the student's and the teacher's file; each format is compared with itself. A model that is
    its own teacher is timed once.
    """
    # Both read the same ids, so they come from the smaller vocabulary.
    vocabulary = min(int(model.config.vocab_size) for model in (student, teacher))
    inputs = {rows: random_batch(vocabulary, rows, tokens, seed=0) for rows in batches}
    before = torch.get_num_threads()
    torch.set_num_threads(LATENCY_THREADS)
    try:
        found = {
            "torch": _compare(
                "torch", [partial(torch_call, model) for model in _distinct(student, teacher)], inputs, repeats
            )
        }
        for kind, paths in files.items():
            calls = [partial(onnx_call, OnnxClassifier(path, LATENCY_THREADS)) for path in _distinct(*paths)]
            found[kind] = _compare(kind, calls, inputs, repeats)
    finally:
        torch.set_num_threads(before)
    return found


def torch_call(model: Any, ids: Batch, mask: Batch) -> Call:
    """Return a call without arguments that runs the model on this batch."""
    ids_BT, mask_BT = torch.from_numpy(ids), torch.from_numpy(mask)

    def call() -> object:
        with torch.inference_mode():
            return model(input_ids=ids_BT, attention_mask=mask_BT).logits

    return call


def onnx_call(session: OnnxClassifier, ids: Batch, mask: Batch) -> Call:
    """Return a call without arguments that runs the session on this batch."""
    return partial(session.logits, ids, mask)


def _distinct(student: Any, teacher: Any) -> list[Any]:
    return [student] if student == teacher else [student, teacher]


def _compare(
    kind: str, sides: Sequence[Callable[[Batch, Batch], Call]], inputs: Mapping[int, tuple[Batch, Batch]], repeats: int
) -> dict[str, dict[str, float]]:
    """Return batch size -> LATENCY of the first of the `sides` beside the last, which is its teacher or itself."""
    found = {}
    for rows, batch in inputs.items():
        taken = [*time_interleaved({str(i): side(*batch) for i, side in enumerate(sides)}, repeats).values()]
        record = latency_record(taken[0], taken[-1])
        say(
            f"latency {kind} batch {rows}: {record['latency_ms_p50']:.2f} ms, "
            f"teacher {record['teacher_latency_ms_p50']:.2f} ms"
        )
        found[str(rows)] = record
    return found


def continued(
    model: Any, prompts_BT: NDArray[np.int64], new_tokens: int, *, use_cache: bool = True
) -> NDArray[np.int64]:
    """Return the `new_tokens` most likely tokens after each prompt, one by one, (B, new tokens); the end is no end."""
    ids_BT = torch.from_numpy(prompts_BT).to(model.device)
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            do_sample=False,
            use_cache=use_cache,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=0,
        )
    made: NDArray[np.int64] = found[:, ids_BT.shape[1] :].cpu().numpy()
    return made


def next_token_call(model: Any, ids_BT: NDArray[np.int64]) -> Call:
    """Return a call that computes one more token after these, whose keys and values are cached already."""
    ids = torch.from_numpy(ids_BT)
    with torch.inference_mode():
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

    def call() -> object:
        with torch.inference_mode():
            logits = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits
            cache.crop(-1)  # one token back, to where it was
        return logits

    return call


def compare_token_latencies(
    student: Any, teacher: Any, batches: Sequence[int], tokens: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Return batch size -> LATENCY of cost.json for a token after `tokens` others, student and teacher taking turns.

    `tokens_per_second` is what the median latency makes of all rows of the batch together.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(LATENCY_THREADS)
    found = {}
    try:
        for rows in batches:
            ids, _ = random_batch(int(student.config.vocab_size), rows, tokens, seed=0)
            calls = {"student": next_token_call(student, ids), "teacher": next_token_call(teacher, ids)}
            taken = time_interleaved(calls, repeats)
            record = latency_record(taken["student"], taken["teacher"])
            record["tokens_per_second"] = round(1000.0 * rows / record["latency_ms_p50"], 2)
            say(
                f"latency a token, batch {rows}: {record['latency_ms_p50']:.2f} ms, "
                f"teacher {record['teacher_latency_ms_p50']:.2f} ms"
            )
            found[str(rows)] = record
    finally:
        torch.set_num_threads(before)
    return found
