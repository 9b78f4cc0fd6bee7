"""What int8 makes of a model, beside the teacher in int8: like with like."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tasks.evaluation.quality import Floats, Ints, interval, interval_of_mean, resample_counts

INT8_COLUMN: Final = "prediction_int8"  # of the predictions of a set: the class that the int8 file chose


def measure_int8(
    labels: Ints, chosen: Ints, chosen_fp32: Ints, teachers: Ints, *, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Return the intervals of a set's `onnx_int8` in quality.json, from the classes chosen row by row.

    `accuracy`; `accuracy_ratio`, to that of the int8 teacher on the same drawn rows; `agreement`, the share of rows on which both
    choose the same class; `agreement_fp32`, the same with the model before rounding.
    """
    right = np.stack([chosen == labels, teachers == labels], axis=1).astype(np.float64)
    drawn = np.concatenate([counts_RN @ right for counts_RN in resample_counts(len(labels), resamples, seed)])
    whole = right.sum(axis=0)
    how = (resamples, confidence, seed)
    return {
        "accuracy": interval_of_mean(chosen == labels, *how),
        "accuracy_ratio": interval(float(_ratios(whole[None])[0]), _ratios(drawn), confidence),
        "agreement": interval_of_mean(chosen == teachers, *how),
        "agreement_fp32": interval_of_mean(chosen == chosen_fp32, *how),
    }


def _ratios(sums_RK: Floats) -> Floats:
    found: Floats = sums_RK[:, 0] / np.maximum(sums_RK[:, 1], 1.0)  # a teacher may be right on no row that was drawn
    return found
