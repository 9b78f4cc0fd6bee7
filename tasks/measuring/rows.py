"""One set of rows measured: its entry of quality.json and the predictions kept for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.artifacts import Interval, SetQuality, original_of
from tasks.data.frames import rows_sha256
from tasks.data.pairs import GROUP, holds_pairs, joined_texts, texts_of
from tasks.errors import StageError
from tasks.measuring.predictions import read_rows
from tasks.measuring.quality import Draws, Floats, Ints, interval_of_mean, intervals_of_sums, measure_slices, moved_by_order
from tasks.measuring.slices import document_frequency, masks_of, slice_names, slices_of
from tasks.measuring.subject import RowSettings
from tasks.measuring.unlabelled import calibrating_temperature, measure_unlike, slices_of_changes, unlike

CALIBRATED_ON: Final = "validation"
ORDER: Final = "order_sensitivity"
Floats32 = NDArray[np.float32]


def learnt_words(learnt_from: Iterable[pd.DataFrame]) -> Mapping[str, int]:
    """Return in how many of the texts that were learnt from each word occurs; rare words are those rare there."""
    return document_frequency(text for frame in learnt_from for text in joined_texts(frame))


def measure(
    frame: pd.DataFrame,
    logits: NDArray[np.floating[Any]],
    teacher_predictions: Ints | None,
    learnt: Mapping[str, int],
    how: RowSettings,
) -> tuple[SetQuality, pd.DataFrame]:
    """Return the set's entry of quality.json (without variants) and its predictions, as docs/artifacts.md has them.

    `frame` has row_id, text, label and source; logits (N, C) and teacher_predictions (N,) are in its order; `learnt` are the
    `learnt_words`. Of pairs whole groups are drawn, and the predictions name the group of each row.
    """
    labels = frame["label"].to_numpy(dtype=np.int64)
    sources, names = frame["source"].astype(str).tolist(), [how.labels[i] for i in sorted(how.labels)]
    rows = slices_of(texts_of(frame), labels.tolist(), sources, names, learnt, how.rare_share)
    masks, pairs = masks_of(rows, slice_names(names, sources, holds_pairs(frame))), holds_pairs(frame)
    entry: SetQuality = {
        "rows": len(frame),
        "rows_sha256": rows_sha256(frame["row_id"]),
        "slices": measure_slices(labels, logits, teacher_predictions, masks, how.bins, draws_of(frame, how.draws)),
    }
    columns: dict[str, Any] = {
        "row_id": frame["row_id"].to_numpy(),
        "label": labels,
        "prediction": logits.argmax(axis=1).astype(np.int64),
        **{f"logit_{c}": logits[:, c].astype(np.float32) for c in range(logits.shape[1])},
        "slices": rows,
        **({GROUP: frame[GROUP].to_numpy()} if pairs else {}),
    }
    return entry, pd.DataFrame(columns)


def draws_of(frame: pd.DataFrame, draws: Draws) -> Draws:
    """Return how intervals of a set are drawn: of pairs group by group, since rows of one first text are not independent."""
    return replace(draws, groups=tuple(frame[GROUP])) if holds_pairs(frame) else draws


def measure_order(logits: NDArray[np.floating[Any]], swapped: Floats, draws: Draws) -> dict[str, Interval]:
    """Return the intervals of a set's `swapped` in quality.json: what the model says when the two texts change places.

    `order_sensitivity` is the mean of `moved_by_order`, `agreement` the share of rows that keep their class. `swapped` are
    probabilities (N, C).
    """
    return {
        ORDER: interval_of_mean(moved_by_order(logits, swapped), draws),
        "agreement": interval_of_mean(logits.argmax(axis=1) == swapped.argmax(axis=1), draws),
    }


def temperature_of(evaluated: Path) -> float:
    """Return the temperature at which the teacher's probabilities fit the labels of validation, from its stored predictions."""
    rows = read_rows(evaluated / "predictions" / f"{CALIBRATED_ON}.parquet")
    if rows is None:
        raise StageError("evaluate", f"{evaluated} has no predictions on {CALIBRATED_ON}; evaluate the teacher again")
    return calibrating_temperature(rows["logits"], rows["label"])


def measure_unlabelled(
    frame: pd.DataFrame, answers: tuple[Floats32, Floats32, float], learnt: Mapping[str, int], how: RowSettings
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """Return the slices of a set without labels and its predictions.

    `answers` are the logits of student and teacher (N, C), in the order of `frame`, and the teacher's temperature. Rows of a set
    of changed copies have one slice each; others are sliced as labelled ones, by what the teacher chose in place of the class.
    """
    logits, teachers, temperature = answers
    ids, sources = frame["row_id"].tolist(), frame["source"].astype(str).tolist()
    copies = any(row != original_of(row) for row in ids)
    if copies:
        rows = slices_of_changes(sources)
        names = sorted({name for row in rows for name in row})
    else:
        chosen, classes = teachers.argmax(axis=1).tolist(), [how.labels[i] for i in sorted(how.labels)]
        found = slices_of(frame["text"].tolist(), chosen, sources, classes, learnt, how.rare_share)
        rows = [[renamed(name) for name in row if not name.startswith("source:")] for row in found]
        names = [renamed(name) for name in slice_names(classes, [])]
    compared = unlike(logits, teachers, temperature, ids if copies else ())
    columns: dict[str, Any] = {
        "row_id": ids,
        "label": frame["label"].to_numpy(dtype=np.int64),
        "prediction": logits.argmax(axis=1).astype(np.int64),
        **{f"logit_{c}": logits[:, c].astype(np.float32) for c in range(logits.shape[1])},
        "slices": rows,
    }
    return measure_unlike(compared, masks_of(rows, names), how.draws), pd.DataFrame(columns)


def renamed(name: str) -> str:
    """Return the name of a slice of rows without labels: that of a class is of those that the teacher puts there."""
    return name.replace("class:", "teacher:", 1) if name.startswith("class:") else name


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
