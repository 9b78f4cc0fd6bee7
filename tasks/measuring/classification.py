"""One evaluation set measured: the entry of quality.json and the predictions kept for each row.

What int8 makes of a model, beside the teacher in int8: like with like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.frames import rows_sha256
from tasks.measuring.quality import Floats, Ints, interval, interval_of_mean, measure_slices, resample_counts
from tasks.measuring.slices import document_frequency, masks_of, slice_names, slices_of


@dataclass(frozen=True)
class Measures:
    """How to measure; the same for every model, so that their intervals compare and their resamples pair."""

    label_names: Sequence[str]
    frequency: Mapping[str, int]
    rare_share: float
    bins: int
    resamples: int
    confidence: float
    seed: int


def measures_of(
    labels: Mapping[int, str], settings: Mapping[str, Any], seed: int, learnt_from: Iterable[pd.DataFrame]
) -> Measures:
    """Return how a run measures, by its section `evaluate`; rare words are those rare in the texts `learnt_from`."""
    return Measures(
        label_names=[labels[i] for i in sorted(labels)],
        frequency=document_frequency(text for frame in learnt_from for text in frame["text"]),
        rare_share=settings["rare_token_share"],
        bins=settings["calibration_bins"],
        resamples=settings["bootstrap_resamples"],
        confidence=settings["confidence"],
        seed=seed,
    )


def measure(
    frame: pd.DataFrame, logits: NDArray[np.floating[Any]], teacher_predictions: Ints | None, how: Measures
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the set's entry of quality.json (without variants) and its predictions, as docs/artifacts.md has them.

    `frame` has row_id, text, label and source; logits (N, C) and teacher_predictions (N,) are in its order.
    """
    labels = frame["label"].to_numpy(dtype=np.int64)
    sources = frame["source"].astype(str).tolist()
    rows = slices_of(frame["text"].tolist(), labels.tolist(), sources, how.label_names, how.frequency, how.rare_share)
    entry = {
        "rows": len(frame),
        "rows_sha256": rows_sha256(frame["row_id"]),
        "slices": measure_slices(
            labels,
            logits,
            teacher_predictions,
            masks_of(rows, slice_names(how.label_names, sources)),
            bins=how.bins,
            resamples=how.resamples,
            confidence=how.confidence,
            seed=how.seed,
        ),
    }
    return entry, _predictions(frame, logits, rows)


def write_predictions(predictions: pd.DataFrame, folder: Path, name: str) -> None:
    """Write the predictions of a set as `<folder>/<name>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / f"{name}.parquet", index=False)


def _predictions(frame: pd.DataFrame, logits: NDArray[np.floating[Any]], rows: list[list[str]]) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "row_id": frame["row_id"].to_numpy(),
        "label": frame["label"].to_numpy(dtype=np.int64),
        "prediction": logits.argmax(axis=1).astype(np.int64),
    }
    columns |= {f"logit_{c}": logits[:, c].astype(np.float32) for c in range(logits.shape[1])}
    return pd.DataFrame({**columns, "slices": rows})


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
