"""Milliseconds of every round against the teacher, taking turns, in torch and in ONNX Runtime on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.exports.onnx import ONNX_FILES
from tasks.measuring.cost import LATENCY_THREADS
from tasks.measuring.latency import compare_latencies
from tasks.measuring.subject import Timing
from tasks.models.checkpoint import load_classifier
from tasks.params.file import load_params


def measure(workspace: Path, turns: int) -> dict[str, Any]:
    """Return round -> format -> batch size -> LATENCY of cost.json, measured now over `turns`."""
    params = load_params(workspace / "params.yaml")
    place = workspace / "artifacts" / "rounds"
    teacher = load_classifier(place / "teacher" / "trained" / "model")
    rounds = {
        name: compare_latencies(
            load_classifier(place / name / "trained" / "model"),
            teacher,
            {
                kind: (place / name / "exported" / file, place / "teacher" / "exported" / file)
                for kind, file in ONNX_FILES.items()
            },
            Timing(params.evaluate.latency_batches, params.evaluate.latency_tokens, turns),
        )
        for name in params.rounds
    }
    return {"threads": LATENCY_THREADS, "tokens": params.evaluate.latency_tokens, "turns": turns, "rounds": rounds}
