"""Measures a model: quality with intervals and slices on every evaluation set, and its cost beside the teacher's.

deps: model, its exports and tokens, data/sets, the teacher, its exports and predictions
params: data, evaluate, seed | outs: rounds/<round>/evaluated
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.frames import read_sets
from tasks.data.tokens import TokenSet, load_tokens, tokenize
from tasks.errors import StageError
from tasks.exports.onnx import FP32_FILE, INT8_FILE, ONNX_FILES, OnnxClassifier
from tasks.files import file_sha256, write_json
from tasks.measuring.classification import INT8_COLUMN, measure, measure_int8, measures_of, write_predictions
from tasks.measuring.cost import count_parameters, peak_memory_bytes, random_batch, weights_bytes
from tasks.measuring.latency import LATENCY_THREADS, compare_latencies, torch_call
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device, pick
from tasks.models.masks import zero_weights
from tasks.models.predict import predict_logits
from tasks.params.classification import ClassificationParams
from tasks.progress import Progress
from tasks.running.stage import InPath, OutPath

BATCH_ROWS: Final = 32
INT8_SET: Final = "test"  # int8 is a variant of the same model: one set tells what the rounding costs


def run(
    params: ClassificationParams,
    *,
    round: str,
    model: InPath,
    exported: InPath,
    sets: InPath,
    tokens: InPath,
    teacher: InPath,
    teacher_exported: InPath,
    out: OutPath,
    teacher_evaluated: InPath | None = None,
) -> dict[str, Any]:
    """Return the headline numbers; without `teacher_evaluated` the model is the teacher and agrees with itself."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = Device(device.device, "fp32", device.threads)  # a verdict should not hang on the rounding of bf16
    classifier = load_classifier(model)
    learnt_from = read_sets(sets, ["train", "transfer"]).values()
    how = measures_of(params.data.labels, params.evaluate.model_dump(), params.seed, learnt_from)
    entries = {}
    for name, frame in read_sets(sets, params.data.measured_sets).items():
        rows = _tokens_of(tokens / name, frame, model, params.data.max_tokens)
        progress = Progress(f"evaluate@{round} {name}", len(rows), "rows")
        logits = predict_logits(classifier, rows, BATCH_ROWS, device, progress.update)
        teacher_predictions = logits.argmax(axis=1)
        if teacher_evaluated is not None:
            teacher_predictions = read_predictions(teacher_evaluated, name, frame)
        entry, predictions = measure(frame, logits, teacher_predictions, how)
        entry["variants"] = {}
        if name == INT8_SET:
            chosen = _int8_classes(exported / INT8_FILE, rows, device.threads)
            teachers = (
                chosen if teacher_evaluated is None else read_predictions(teacher_evaluated, name, frame, INT8_COLUMN)
            )
            entry["variants"]["onnx_int8"] = measure_int8(
                frame["label"].to_numpy(dtype=np.int64),
                chosen,
                logits.argmax(axis=1),
                teachers,
                resamples=how.resamples,
                confidence=how.confidence,
                seed=how.seed,
            )
            predictions[INT8_COLUMN] = chosen
        entries[name] = entry
        write_predictions(predictions, out / "predictions", name)
    quality = {
        "round": round,
        "model_sha256": file_sha256(model / "model.safetensors"),
        "confidence": params.evaluate.confidence,
        "sets": entries,
    }
    write_json(out / "quality.json", quality)
    cost = measure_cost(params, round, classifier, (model, exported), (teacher, teacher_exported))
    write_json(out / "cost.json", cost)
    return {**_headline(quality, cost), **device.facts()}


def read_predictions(evaluated: Path, name: str, frame: pd.DataFrame, column: str = "prediction") -> NDArray[np.int64]:
    """Return the classes an earlier evaluation chose for these rows; StageError unless it had the same ones."""
    place = evaluated / "predictions" / f"{name}.parquet"
    found = pd.read_parquet(place, columns=["row_id", column])
    if found["row_id"].tolist() != frame["row_id"].tolist():
        raise StageError("evaluate", f"{place} holds other rows than the {name} set; evaluate the teacher again")
    return found[column].to_numpy(dtype=np.int64)


def _tokens_of(prefix: Path, frame: pd.DataFrame, model: Path, max_tokens: int) -> TokenSet:
    if Path(f"{prefix}.ids.npy").exists():
        return load_tokens(prefix)
    return tokenize(frame["text"].tolist(), model / "tokenizer.json", max_tokens)


def _int8_classes(path: Path, tokens: TokenSet, threads: int) -> NDArray[np.int64]:
    chosen: NDArray[np.int64] = OnnxClassifier(path, threads).predict(tokens, BATCH_ROWS).argmax(axis=1)
    return chosen


def measure_cost(
    params: ClassificationParams,
    round_name: str,
    student: Any,
    student_at: tuple[Path, Path],
    teacher_at: tuple[Path, Path],
) -> dict[str, Any]:
    """Return the content of cost.json; a model is given by its folder and the folder of its exports."""
    folder, exported = student_at
    section = params.evaluate
    config = student.config.to_dict()
    student = student.cpu()
    counts = count_parameters(student)
    masked = zero_weights(student)
    batch = random_batch(int(config["vocab_size"]), max(section.latency_batches), section.latency_tokens, seed=0)
    return {
        "round": round_name,
        "params_total": counts["total"],
        "params_non_embedding": counts["non_embedding"],
        **({"sparsity": masked} if masked["weights_zeroed"] else {}),
        "size_bytes": weights_bytes(folder),
        "size_bytes_onnx": (exported / FP32_FILE).stat().st_size,
        "size_bytes_onnx_int8": (exported / INT8_FILE).stat().st_size,
        "flops_per_example": adapter_of(config).flops_per_example(
            config, section.latency_tokens, len(params.data.labels)
        ),
        "flops_tokens": section.latency_tokens,
        "peak_memory_bytes": peak_memory_bytes(student, torch_call(student, *batch)),
        "threads": LATENCY_THREADS,
        "latency": compare_latencies(
            student,
            student if folder == teacher_at[0] else load_classifier(teacher_at[0]),
            {kind: (exported / file, teacher_at[1] / file) for kind, file in ONNX_FILES.items()},
            section.latency_batches,
            section.latency_tokens,
            section.latency_repeats,
        ),
    }


def _headline(quality: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers worth a line of a log or a receipt."""
    found = {key: cost[key] for key in ("params_total", "size_bytes", "flops_per_example")}
    for name, entry in quality["sets"].items():
        found[f"{name}_accuracy"] = entry["slices"]["overall"]["accuracy"]["value"]
    return found
