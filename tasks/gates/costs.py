"""Evidence that does not depend on rows: what models cost to run, and how faithful their exports are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.gates.rules import Key, Measurement

COUNTED: Final = ("params_total", "params_non_embedding", "size_bytes", "flops_per_example", "flops_per_token")
DIFFERENCES: Final = (
    "load_back_max_difference",
    "golden_max_difference",
    "onnx_max_difference",
    "cache_mismatched_tokens",
    "gguf_max_difference",
)
LATENCY: Final = "latency_ms_p50_batch_1"


def cost_evidence(costs: Mapping[str, Mapping[str, Any]]) -> dict[Key, Measurement]:
    """Return sizes, FLOPs and latencies from the cost.json of each model by name; `student` is the one that is judged.

    Every latency was measured beside the teacher's, interleaved in one process. So the teacher's is the one beside the
    student, and another model's is its ratio to the teacher times that: two processes at two times do not compare.
    """
    evidence: dict[Key, Measurement] = {}
    beside = _latency(costs.get("student", {}))
    for who, cost in costs.items():
        for metric in COUNTED:
            evidence[who, metric, None, "overall"] = Measurement(cost.get(metric))
        value = _product(_latency(cost).get("ratio_p50"), beside.get("teacher_latency_ms_p50"))
        if who in ("student", "teacher"):
            value = beside.get("latency_ms_p50" if who == "student" else "teacher_latency_ms_p50")
        evidence[who, LATENCY, None, "overall"] = Measurement(value)
    return evidence


def parity_evidence(parity: Mapping[str, Any]) -> dict[Key, Measurement]:
    """Return the differences of the student's other forms from parity.json."""
    return {("student", metric, None, "overall"): Measurement(parity.get(metric)) for metric in DIFFERENCES}


def _latency(cost: Mapping[str, Any]) -> Mapping[str, Any]:
    latency: Mapping[str, Any] = cost.get("latency", {}).get("torch", {}).get("1", {})
    return latency


def _product(ratio: object, reference: object) -> float | None:
    if isinstance(ratio, float) and isinstance(reference, float):
        return ratio * reference
    return None
