"""Student and teacher timed against each other, in torch and in ONNX Runtime.

Text from a language model: greedy continuations, and the time of one further token with a key-value cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.artifacts import Latency
from tasks.exports.onnx import OnnxClassifier
from tasks.measuring.cost import LATENCY_THREADS, Call, latency_record, random_batch, time_interleaved, torch_call
from tasks.measuring.subject import Timing
from tasks.progress import say

Batch = NDArray[np.int64]


def compare_latencies(
    student: Any, teacher: Any, files: Mapping[str, tuple[Path, Path]], timing: Timing
) -> dict[str, dict[str, Latency]]:
    """Return format -> batch size -> LATENCY of cost.json, student and teacher taking turns on one thread.

    `files` gives for each ONNX format the student's and the teacher's file; each format is compared with itself. A model that is
    its own teacher is timed once.
    """
    inputs = _inputs(student, teacher, timing)
    with _on_one_thread():
        sides: list[Callable[..., Call]] = [partial(torch_call, model) for model in _distinct(student, teacher)]
        records = {"torch": _compare("torch", sides, inputs, timing.repeats)}
        for kind, paths in files.items():
            sides = [partial(onnx_call, OnnxClassifier(path, LATENCY_THREADS)) for path in _distinct(*paths)]
            records[kind] = _compare(kind, sides, inputs, timing.repeats)
    return records


def compare_token_latencies(student: Any, teacher: Any, timing: Timing) -> dict[str, Latency]:
    """Return batch size -> LATENCY of cost.json for a token after so many others, student and teacher taking turns.

    `tokens_per_second` is what the median latency makes of all rows of the batch together.
    """
    inputs = {rows: (ids,) for rows, (ids, _) in _inputs(student, teacher, timing).items()}
    sides = [partial(next_token_call, model) for model in _distinct(student, teacher)]
    with _on_one_thread():
        records = _compare("a token,", sides, inputs, timing.repeats)
    for rows, record in records.items():
        record["tokens_per_second"] = round(1000.0 * int(rows) / record["latency_ms_p50"], 2)
    return records


def onnx_call(session: OnnxClassifier, ids: Batch, mask: Batch) -> Call:
    """Return a call without arguments that runs the session on this batch."""
    return partial(session.logits, ids, mask)


def next_token_call(model: Any, ids_BT: Batch) -> Call:
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


def continued(model: Any, prompts_BT: Batch, new_tokens: int, *, use_cache: bool = True) -> Batch:
    """Return the `new_tokens` most likely tokens after each prompt, one by one, (B, new tokens); the end is no end."""
    ids_BT = torch.from_numpy(prompts_BT).to(model.device)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            do_sample=False,
            use_cache=use_cache,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=0,
        )
    made: Batch = generated[:, ids_BT.shape[1] :].cpu().numpy()
    return made


def _distinct(student: Any, teacher: Any) -> list[Any]:
    return [student] if student == teacher else [student, teacher]


def _inputs(student: Any, teacher: Any, timing: Timing) -> dict[int, tuple[Batch, Batch]]:
    """Return batch size -> ids and mask; both models read the same ids, so they come from the smaller vocabulary."""
    vocabulary = min(int(model.config.vocab_size) for model in (student, teacher))
    return {rows: random_batch(vocabulary, rows, timing.tokens, seed=0) for rows in timing.batches}


@contextlib.contextmanager
def _on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(LATENCY_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compare(
    kind: str, sides: Sequence[Callable[..., Call]], inputs: Mapping[int, tuple[Batch, ...]], repeats: int
) -> dict[str, Latency]:
    """Return batch size -> LATENCY of the first of the `sides` beside the last, which is its teacher or itself."""
    records = {}
    for rows, batch in inputs.items():
        taken = [*time_interleaved({str(i): side(*batch) for i, side in enumerate(sides)}, repeats).values()]
        record = latency_record(taken[0], taken[-1])
        student_ms, teacher_ms = record["latency_ms_p50"], record["teacher_latency_ms_p50"]
        say(f"latency {kind} batch {rows}: {student_ms:.2f} ms, teacher {teacher_ms:.2f} ms")
        records[str(rows)] = record
    return records
