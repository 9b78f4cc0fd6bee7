"""One evaluation set measured: the entry of quality.json and the predictions kept for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.data.frames import rows_sha256
from tasks.evaluation.quality import measure_slices
from tasks.evaluation.slices import document_frequency, masks_of, slice_names, slices_of

Ints = NDArray[np.int64]


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
