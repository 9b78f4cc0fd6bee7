"""A classifier measured: quality on every evaluation set, in PyTorch and as int8, and what it costs beside its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from tasks.artifacts import Cost, Quality, SetQuality, UnlabelledQuality
from tasks.data.frames import read_sets, rows_sha256
from tasks.data.pairs import SECOND, holds_pairs, swapped, texts_of
from tasks.data.tokens import TokenSet, load_tokens, tokenize
from tasks.exports.onnx import FP32_FILE, INT8_FILE, ONNX_FILES, OnnxClassifier
from tasks.measuring.cost import cost_of
from tasks.measuring.latency import compare_latencies
from tasks.measuring.pieces import pieces_of
from tasks.measuring.predictions import INT8_COLUMN, SWAPPED, logits_of, of_teacher, write_predictions
from tasks.measuring.quality import Floats, Ints, log_softmax
from tasks.measuring.rows import draws_of, learnt_words, measure, measure_int8, measure_order, measure_unlabelled, temperature_of
from tasks.measuring.subject import RowSettings, Subject, Teacher, quality_of
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import Device
from tasks.models.masks import zero_weights
from tasks.models.predict import predict_logits
from tasks.progress import Progress

BATCH_ROWS: Final = 32
INT8_SET: Final = "test"  # int8 is a variant of the same model: one set tells what the rounding costs


def measure_sets(subject: Subject, teacher: Teacher, settings: RowSettings, out: Path, device: Device) -> Quality:
    """Return the content of quality.json; the predictions of every set are written below `out`."""
    learnt = learnt_words(read_sets(subject.sets, ["train", "transfer"]).values())
    entries: dict[str, SetQuality] = {}
    for name, frame in read_sets(subject.sets, settings.sets).items():
        tokens = _tokens_of(subject, name, frame, settings.max_tokens)
        progress = Progress(f"evaluate@{subject.round} {name}", len(tokens), "rows")
        logits = predict_logits(subject.model, tokens, BATCH_ROWS, device, progress.update)
        chosen = logits.argmax(axis=1)
        teachers = _teachers(teacher, name, frame, chosen)
        entries[name], predictions = measure(frame, logits, teachers, learnt, settings)
        if subject.exported is not None:
            entries[name]["variants"] = {}
            if name == INT8_SET:
                session = OnnxClassifier(subject.exported / INT8_FILE, device.threads)
                int8 = predictions[INT8_COLUMN] = session.predict(tokens, BATCH_ROWS).argmax(axis=1)
                teachers = _teachers(teacher, name, frame, int8, INT8_COLUMN)
                labels = frame["label"].to_numpy(dtype=np.int64)
                draws = draws_of(frame, settings.draws)
                entries[name]["variants"]["onnx_int8"] = measure_int8(labels, int8, chosen, teachers, draws)
                if holds_pairs(frame):
                    other = _probabilities_swapped(subject, frame, settings, device)
                    predictions = predictions.assign(**{f"{SWAPPED}{c}": other[:, c] for c in range(other.shape[1])})
                    entries[name]["variants"]["swapped"] = measure_order(logits, other, draws)
        write_predictions(predictions, out / "predictions", name)
    return quality_of(subject, settings.draws.confidence, entries, _without_labels(subject, teacher, settings, out, device))


def _probabilities_swapped(subject: Subject, frame: pd.DataFrame, settings: RowSettings, device: Device) -> Floats:
    """Return what the model says of pairs whose texts change places, (N, C), rounded as it is stored."""
    texts = swapped(list(zip(frame["text"], frame[SECOND], strict=True)))
    tokens = tokenize(texts, subject.folder / "tokenizer.json", settings.max_tokens)
    return np.exp(log_softmax(predict_logits(subject.model, tokens, BATCH_ROWS, device))).astype(np.float32).astype(np.float64)


def _without_labels(
    subject: Subject, teacher: Teacher, settings: RowSettings, out: Path, device: Device
) -> dict[str, UnlabelledQuality]:
    """Return the entry of each set without labels; the teacher is compared with itself."""
    if not settings.unlabelled:
        return {}
    learnt = learnt_words(read_sets(subject.sets, ["train", "transfer"]).values())
    evaluated = teacher.evaluated or out
    temperature, entries = temperature_of(evaluated), {}
    files = [folder / "tokenizer.json" for folder in (subject.folder, teacher.folder)]
    for name, frame in read_sets(subject.sets, settings.unlabelled).items():
        tokens = _tokens_of(subject, name, frame, settings.max_tokens)
        progress = Progress(f"evaluate@{subject.round} {name}", len(tokens), "rows")
        logits = predict_logits(subject.model, tokens, BATCH_ROWS, device, progress.update)
        others = logits if teacher.evaluated is None else logits_of(teacher.evaluated, name, frame, len(settings.labels))
        slices, predictions = measure_unlabelled(frame, (logits, others, temperature), learnt, settings)
        write_predictions(predictions, out / "predictions", name)
        entries[name] = UnlabelledQuality(
            rows=len(frame),
            rows_sha256=rows_sha256(frame["row_id"]),
            slices=slices,
            pieces=pieces_of(frame["text"].tolist(), *files),
        )
    return entries


def measure_cost(subject: Subject, teacher: Teacher, settings: RowSettings) -> Cost:
    """Return the content of cost.json; both models have exports."""
    exported, teacher_exported = subject.exported, teacher.exported
    assert exported is not None
    assert teacher_exported is not None
    cost, config = cost_of(subject, settings.timing), subject.model.config.to_dict()
    masked = zero_weights(subject.model)
    if masked["weights_zeroed"]:
        cost["sparsity"] = masked
    cost["size_bytes_onnx"] = (exported / FP32_FILE).stat().st_size
    cost["size_bytes_onnx_int8"] = (exported / INT8_FILE).stat().st_size
    cost["flops_per_example"] = adapter_of(config).flops_per_example(config, settings.timing.tokens, len(settings.labels))
    beside = subject.model if subject.folder == teacher.folder else load_classifier(teacher.folder)
    files = {kind: (exported / file, teacher_exported / file) for kind, file in ONNX_FILES.items()}
    cost["latency"] = compare_latencies(subject.model, beside, files, settings.timing)
    return cost


def _tokens_of(subject: Subject, name: str, frame: pd.DataFrame, max_tokens: int) -> TokenSet:
    prefix = subject.tokens / name
    if Path(f"{prefix}.ids.npy").exists():
        return load_tokens(prefix)
    return tokenize(texts_of(frame), subject.folder / "tokenizer.json", max_tokens)


def _teachers(teacher: Teacher, name: str, frame: pd.DataFrame, own: Ints, column: str = "prediction") -> Ints:
    """Return the classes that the teacher chose for these rows, the subject's own where that is the teacher."""
    if teacher.evaluated is None:
        return own
    chosen: Ints = of_teacher(teacher.evaluated, name, frame, ("row_id", column))[column].to_numpy(dtype=np.int64)
    return chosen
