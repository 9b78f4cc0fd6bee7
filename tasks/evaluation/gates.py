"""Gate rules: evidence in, a verdict out. A verdict is data, never an exit code."""

from __future__ import annotations

from typing import Final

BOUNDS: Final = ("min", "max", "min_ratio", "max_ratio", "min_gain", "max_drop")

# metric -> does it belong to an evaluation set (and so needs `set`)?
METRICS: Final[dict[str, bool]] = {
    "accuracy": True,
    "macro_f1": True,
    "nll_nats_per_example": True,
    "calibration_error": True,
    "agreement": True,
    "params_total": False,
    "params_non_embedding": False,
    "size_bytes": False,
    "flops_per_example": False,
    "latency_ms_p50_batch_1": False,
    "load_back_max_difference": False,
    "onnx_max_difference": False,
}
