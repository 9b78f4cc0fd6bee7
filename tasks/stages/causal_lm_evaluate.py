"""Measures a language model: perplexity with intervals on every set, greedy samples, and its cost beside the teacher's.

deps: model and blocks, the teacher and its predictions | params: seed, data, evaluate | outs: rounds/<round>/evaluated
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.blocks import load_blocks
from tasks.data.frames import rows_sha256
from tasks.data.vocabulary import kept_at_teacher
from tasks.errors import StageError
from tasks.files import file_sha256, write_json
from tasks.measuring.causal_lm import SAMPLES, Reader, agreed_pieces, read_block_predictions
from tasks.measuring.classification import write_predictions
from tasks.measuring.cost import count_parameters, peak_memory_bytes, random_batch, weights_bytes
from tasks.measuring.latency import LATENCY_THREADS, compare_token_latencies, continued, torch_call
from tasks.measuring.perplexity import measure_blocks, repetition_rate
from tasks.measuring.quality import interval_of_mean
from tasks.models.causal_lm import flops_per_token
from tasks.models.checkpoint import load_causal_lm
from tasks.models.devices import Device, pick
from tasks.params.causal_lm import CausalEvaluate, CausalLMParams
from tasks.running.stage import InPath, OutPath

SAMPLED_SET: Final = "test"


def run(
    params: CausalLMParams,
    *,
    round: str,
    model: InPath,
    exported: InPath,  # noqa: ARG001 - a language model is used from its folder alone
    sets: InPath,  # noqa: ARG001 - their blocks are in `tokens`
    tokens: InPath,
    teacher: InPath,
    teacher_exported: InPath,  # noqa: ARG001 - as `exported`
    out: OutPath,
    teacher_evaluated: InPath | None = None,
) -> dict[str, Any]:
    """Return the headline numbers; without `teacher_evaluated` the model is the teacher and agrees with itself."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = Device(device.device, "fp32", device.threads)  # a verdict should not hang on the rounding of bf16
    language_model = load_causal_lm(model)
    quality = measure_quality(params, round, language_model, model, tokens, teacher, teacher_evaluated, out, device)
    cost = _measure_cost(params.evaluate, round, language_model, model, teacher)
    write_json(out / "cost.json", cost)
    found = {key: cost[key] for key in ("params_total", "size_bytes", "flops_per_token")}
    for name, entry in quality["sets"].items():
        found[f"{name}_perplexity"] = entry["slices"]["overall"]["perplexity"]["value"]
    return {**found, **device.facts()}


def measure_quality(
    params: CausalLMParams,
    round_name: str,
    language_model: Any,
    folder: Path,
    tokens: Path,
    teacher: Path,
    teacher_evaluated: Path | None,
    out: Path,
    device: Device,
) -> dict[str, Any]:
    """Write quality.json and the predictions of every set below `out`, and return the former."""
    entries = {}
    kept_V = kept_at_teacher(tokens, teacher)
    beside = load_causal_lm(teacher) if kept_V is not None else None
    reader = Reader(language_model, beside, kept_V, params.evaluate.batch_blocks, device)
    for name in params.measured_sets():
        frame = reader.read(tokens, name, f"evaluate@{round_name} {name}")
        theirs = frame if teacher_evaluated is None else _teacher_frame(teacher_evaluated, name, frame)
        frame["agreed"], _ = agreed_pieces(frame, theirs)
        entries[name] = _entry(params, frame, theirs)
        write_predictions(frame, out / "predictions", name)
    prompts = np.asarray(load_blocks(tokens, SAMPLED_SET)[: params.evaluate.prompts], dtype=np.int64)
    samples = continued(language_model, prompts[:, : params.evaluate.prompt_tokens], params.evaluate.new_tokens)
    rates = np.array([repetition_rate(sample.tolist()) for sample in samples])
    write_predictions(pd.DataFrame({"sample": list(samples), "repetition_rate": rates}), out / "predictions", SAMPLES)
    how = params.evaluate
    rate = interval_of_mean(rates, how.bootstrap_resamples, how.confidence, params.seed)
    entries[SAMPLED_SET]["variants"] = {"greedy": {"repetition_rate": rate}}
    quality = {
        "round": round_name,
        "model_sha256": file_sha256(folder / "model.safetensors"),
        "confidence": how.confidence,
        "sets": entries,
    }
    write_json(out / "quality.json", quality)
    return quality


def _teacher_frame(evaluated: Path, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the teacher's predictions; StageError unless it saw the same blocks."""
    theirs = read_block_predictions(evaluated / "predictions" / f"{name}.parquet")
    if theirs is None or theirs["row_id"].tolist() != frame["row_id"].tolist():
        place = evaluated / "predictions" / f"{name}.parquet"
        raise StageError("evaluate", f"{place} holds other blocks than the {name} set; evaluate the teacher again")
    return theirs


def _entry(params: CausalLMParams, frame: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    how = params.evaluate
    agreed, pieces = agreed_pieces(frame, theirs)
    overall = measure_blocks(
        frame["nll_nats"].to_numpy(),
        frame["tokens"].to_numpy(),
        agreed,
        theirs["nll_nats"].to_numpy(),
        frame["bytes"].to_numpy(),
        pieces,
        resamples=how.bootstrap_resamples,
        confidence=how.confidence,
        seed=params.seed,
    )
    return {
        "rows": len(frame),
        "rows_sha256": rows_sha256(frame["row_id"]),
        "variants": {},
        "slices": {"overall": overall},
    }


def _measure_cost(
    section: CausalEvaluate, round_name: str, student: Any, folder: Path, teacher: Path
) -> dict[str, Any]:
    """Return the content of cost.json; its latency is that of one more token."""
    config = student.config.to_dict()
    student = student.cpu()
    counts = count_parameters(student)
    batch: tuple[NDArray[np.int64], NDArray[np.int64]] = random_batch(
        int(config["vocab_size"]), max(section.latency_batches), section.latency_tokens, seed=0
    )
    return {
        "round": round_name,
        "params_total": counts["total"],
        "params_non_embedding": counts["non_embedding"],
        "size_bytes": weights_bytes(folder),
        "flops_per_token": flops_per_token(config, section.latency_tokens),
        "flops_tokens": section.latency_tokens,
        "peak_memory_bytes": peak_memory_bytes(student, torch_call(student, *batch)),
        "threads": LATENCY_THREADS,
        "latency": {
            "torch": compare_token_latencies(
                student,
                load_causal_lm(teacher),
                section.latency_batches,
                section.latency_tokens,
                section.latency_repeats,
            )
        },
    }
