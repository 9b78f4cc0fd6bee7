"""One set of rows measured: its entry of quality.json and the predictions kept for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.artifacts import Interval, SetQuality
from tasks.data.frames import rows_sha256
from tasks.measuring.quality import Draws, Floats, Ints, interval_of_mean, intervals_of_sums, measure_slices
from tasks.measuring.slices import document_frequency, masks_of, slice_names, slices_of
from tasks.measuring.subject import RowSettings


@dataclass(frozen=True)
class Measures:
    """How to measure; the same for every model, so that their intervals compare and their resamples pair."""

    label_names: Sequence[str]
    frequency: Mapping[str, int]
    rare_share: float
    bins: int
    draws: Draws


def measures_of(settings: RowSettings, learnt_from: Iterable[pd.DataFrame]) -> Measures:
    """Return how a run measures; rare words are those rare in the texts `learnt_from`."""
    return Measures(
        label_names=[settings.labels[i] for i in sorted(settings.labels)],
        frequency=document_frequency(text for frame in learnt_from for text in frame["text"]),
        rare_share=settings.rare_share,
        bins=settings.bins,
        draws=settings.draws,
    )


def measure(
    frame: pd.DataFrame, logits: NDArray[np.floating[Any]], teacher_predictions: Ints | None, how: Measures
) -> tuple[SetQuality, pd.DataFrame]:
    """Return the set's entry of quality.json (without variants) and its predictions, as docs/artifacts.md has them.

    `frame` has row_id, text, label and source; logits (N, C) and teacher_predictions (N,) are in its order.
    """
    labels = frame["label"].to_numpy(dtype=np.int64)
    sources = frame["source"].astype(str).tolist()
    rows = slices_of(frame["text"].tolist(), labels.tolist(), sources, how.label_names, how.frequency, how.rare_share)
    masks = masks_of(rows, slice_names(how.label_names, sources))
    entry: SetQuality = {
        "rows": len(frame),
        "rows_sha256": rows_sha256(frame["row_id"]),
        "slices": measure_slices(labels, logits, teacher_predictions, masks, how.bins, how.draws),
    }
    columns: dict[str, Any] = {
        "row_id": frame["row_id"].to_numpy(),
        "label": labels,
        "prediction": logits.argmax(axis=1).astype(np.int64),
        **{f"logit_{c}": logits[:, c].astype(np.float32) for c in range(logits.shape[1])},
        "slices": rows,
    }
    return entry, pd.DataFrame(columns)


def measure_int8(labels: Ints, chosen: Ints, chosen_fp32: Ints, teachers: Ints, draws: Draws) -> dict[str, Interval]:
    """Return the intervals of a set's `onnx_int8` in quality.json, from the classes chosen row by row.

    `accuracy`; `accuracy_ratio`, to that of the int8 teacher on the same drawn rows; `agreement`, the share of rows on which both
    choose the same class; `agreement_fp32`, the same with the model before rounding.
    """
    right = np.stack([chosen == labels, teachers == labels], axis=1).astype(np.float64)
    return {
        "accuracy": interval_of_mean(chosen == labels, draws),
        **intervals_of_sums(right, _ratios, draws),
        "agreement": interval_of_mean(chosen == teachers, draws),
        "agreement_fp32": interval_of_mean(chosen == chosen_fp32, draws),
    }


def _ratios(sums_RK: Floats) -> dict[str, Floats]:
    # a teacher may be right on no row that was drawn
    return {"accuracy_ratio": sums_RK[:, 0] / np.maximum(sums_RK[:, 1], 1.0)}
