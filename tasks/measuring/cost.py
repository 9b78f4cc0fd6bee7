"""What a model costs: parameters, bytes, memory and latency. FLOPs are counted by a family's adapter."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from tasks.artifacts import Cost, Latency
from tasks.measuring.subject import Subject, Timing

Latencies = NDArray[np.float64]
Call = Callable[[], object]

LATENCY_THREADS: Final = 1  # what a service gives one request; more threads would hide the work behind waiting
WARM_UP: Final = 3  # first calls plan kernels and touch fresh memory
MIN_REPEATS: Final = 10
LEADS: Final = 2  # untimed calls before a timed one: a service calls one model again and again
QUICK_MS: Final = 50.0  # what takes longer fills the caches itself, and is called without a lead
SECONDS_A_COMPARISON: Final = 4.0  # then fewer repeats must do: 60 large batches of a slow teacher take minutes


def cost_of(subject: Subject, timing: Timing) -> Cost:
    """Return what cost.json tells of every model, latency left out; the model is on the CPU afterwards."""
    model = subject.model.cpu()
    parameters = count_parameters(model)
    batch = random_batch(int(model.config.vocab_size), max(timing.batches), timing.tokens, seed=0)
    return {
        "round": subject.round,
        "params_total": parameters["total"],
        "params_non_embedding": parameters["non_embedding"],
        "size_bytes": weights_bytes(subject.folder),
        "flops_tokens": timing.tokens,
        "peak_memory_bytes": peak_memory_bytes(model, torch_call(model, *batch)),
        "threads": LATENCY_THREADS,
    }


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Return `total` and `non_embedding` parameters; shared weights count once.

    Embeddings are the tables of words, positions and types; a head that shares its weight with one is an embedding too.
    """
    tables = {id(p) for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters(recurse=False)}
    sizes = [(p.numel(), id(p) in tables) for p in model.parameters()]  # parameters() already skips repeats
    return {"total": sum(size for size, _ in sizes), "non_embedding": sum(size for size, is_table in sizes if not is_table)}


def weights_bytes(folder: Path) -> int:
    """Return the bytes on disk of the weights of a model folder, its safetensors files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def time_interleaved(calls: Mapping[str, Call], repeats: int, seconds: float = SECONDS_A_COMPARISON) -> dict[str, Latencies]:
    """Return the milliseconds of each call, which take turns so that a busy moment of the machine hits all of them.

    In a turn a quick call is made `LEADS` times before the time is taken: the other side's weights, which its turn left in the
    processor's caches, are not this one's cost. Stops after `repeats` turns, or after `seconds` once there were `MIN_REPEATS`.
    """
    leads = {name: LEADS if _warmed_up_ms(call) < QUICK_MS else 0 for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for turn in range(repeats):
            if turn >= MIN_REPEATS and time.perf_counter() - start > seconds:
                break
            for name, call in calls.items():
                for _ in range(leads[name]):
                    call()
                taken[name].append(_ms_of(call))
    finally:
        if was_enabled:
            gc.enable()
    return {name: np.array(values) for name, values in taken.items()}


def _warmed_up_ms(call: Call) -> float:
    """Return the milliseconds of the last of the first calls."""
    return [_ms_of(call) for _ in range(WARM_UP)][-1]


def _ms_of(call: Call) -> float:
    before = time.perf_counter()
    call()
    return 1000.0 * (time.perf_counter() - before)


def latency_record(student_ms: Latencies, teacher_ms: Latencies) -> Latency:
    """Return LATENCY of cost.json: the 50th and 95th percentiles of both, and student / teacher at the 50th."""
    student, teacher = (np.percentile(values, [50, 95]) for values in (student_ms, teacher_ms))
    return {
        "latency_ms_p50": round(float(student[0]), 4),
        "latency_ms_p95": round(float(student[1]), 4),
        "teacher_latency_ms_p50": round(float(teacher[0]), 4),
        "teacher_latency_ms_p95": round(float(teacher[1]), 4),
        "ratio_p50": round(float(student[0] / teacher[0]), 5),
    }


def random_batch(vocabulary: int, rows: int, tokens: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and a mask without padding, shape (rows, tokens), int64; the ids do not change the time."""
    ids_BT = np.random.default_rng(seed).integers(0, vocabulary, size=(rows, tokens), dtype=np.int64)
    return ids_BT, np.ones_like(ids_BT)


def torch_call(model: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Call:
    """Return a call without arguments that runs the model on this batch."""
    ids_BT, mask_BT = torch.from_numpy(ids), torch.from_numpy(mask)

    def call() -> object:
        with torch.inference_mode():
            return model(input_ids=ids_BT, attention_mask=mask_BT).logits

    return call


def peak_memory_bytes(model: torch.nn.Module, forward: Call) -> int:
    """Return the bytes of the weights plus the most bytes of other tensors alive at once while `forward` runs.

    Counted from the tensors torch makes, so it is the same on every machine; scratch space inside a kernel is not seen.
    """
    storages = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
    weights: dict[int, int] = {storage._cdata: storage.nbytes() for storage in storages}
    live = _LiveBytes(set(weights))
    with torch.inference_mode(), live:
        forward()
    return sum(weights.values()) + live.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Follows the bytes of all storages made inside it, except the `known` ones; `peak` is the most at once."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self._seen = set(known)
        self._live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._live -= size
