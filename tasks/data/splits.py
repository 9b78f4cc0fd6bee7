"""Rows of a file -> the sets of a run, chosen by the hash of the cleaned text alone.

So the order of rows and the addition of others do not move a sentence between train, validation and test, unless one
of the added is a near-duplicate of it: near-duplicates go together, where the smallest hash among them points.
Sets of a fixed size (evaluation, transfer, calibration) take the first rows in hash order.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from tasks.data.clean import clean_text, cleaned_row_id, hash_order
from tasks.data.frames import COLUMNS, NO_LABEL
from tasks.data.near import clusters, near_held
from tasks.data.read import shorten
from tasks.data.transfer import transfer_set
from tasks.errors import DataError

SPLITS: Final = ("train", "validation", "test")


def make_sets(raw: pd.DataFrame, data: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the sets of a run by name, each with columns row_id, text, label, source, sorted by row_id.

    `raw` comes from `tasks.data.read.read_rows`, `data` is the section `data` of params.yaml as plain values. Raises
    DataError if a set cannot be filled.
    """
    rows, threshold = unique_rows(raw), data["near_duplicate_similarity"]
    _check_sources(rows, data)
    evaluation = _evaluation_sets(rows, data)
    taken = {row for chosen in evaluation.values() for row in chosen["row_id"]}
    task = task_rows(rows[~rows["row_id"].isin(taken)], data)
    if data["columns"]["split"]:
        _check_given_split(raw, data)
    else:
        split = split_of(task["row_id"].tolist(), task["text"].tolist(), data["splits"], threshold)
        task = task.assign(split=split)
    sets = {name: task[task["split"] == name] for name in SPLITS} | evaluation
    _check_classes(sets, data["labels"])
    held = pd.concat([sets["validation"], sets["test"], *evaluation.values()])
    foreign = [text for chosen in evaluation.values() for text in chosen["text"]]
    sets["train"] = _without_near(sets["train"], foreign, threshold)
    rest = rows[~rows["row_id"].isin(taken | set(task["row_id"]))]
    sets["transfer"] = transfer_set(rest, sets["train"], held["text"].tolist(), data["transfer"], threshold)
    sets["calibration"] = _calibration(sets["train"], data["calibration_rows"])
    return {name: rows[list(COLUMNS)].sort_values("row_id", ignore_index=True) for name, rows in sets.items()}


def unique_rows(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the rows cleaned, with their row_id, one a text; texts that came with different labels are left out."""
    text = [clean_text(value) for value in raw["text"]]
    rows = raw.assign(text=text, row_id=[cleaned_row_id(value) for value in text])
    rows = rows[rows.groupby("row_id")["label"].transform("nunique") == 1]
    return rows.sort_values(["row_id", "source", "split", "text"]).drop_duplicates("row_id", ignore_index=True)


def split_of(row_ids: list[str], texts: list[str], shares: Mapping[str, float], threshold: float) -> list[str]:
    """Return train, validation or test for each row, by the smallest hash of its cluster of near-duplicates."""
    cluster = clusters(texts, threshold)
    smallest: dict[int, str] = {}
    for row, root in zip(row_ids, cluster, strict=True):
        smallest[root] = min(smallest.get(root, row), row)
    found = []
    for root in cluster:
        place = int(smallest[root], 16) / 2**64
        if place < shares["test"]:
            found.append("test")
        else:
            found.append("validation" if place < shares["test"] + shares["validation"] else "train")
    return found


def _check_sources(rows: pd.DataFrame, data: Mapping[str, Any]) -> None:
    """Raise DataError if params.yaml names a source that no row has."""
    known = sorted(rows["source"].unique())
    asked = {"data.task_sources": data["task_sources"] or [], "data.transfer.sources": data["transfer"]["sources"]}
    asked |= {f"data.evaluation_sets.{name}.sources": one["sources"] for name, one in data["evaluation_sets"].items()}
    for key, sources in asked.items():
        for source in sources:
            if source not in known:
                near = difflib.get_close_matches(source, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DataError(f"{key}: no row has the source {source!r}{hint} The file has: {', '.join(known[:10])}.")


def _evaluation_sets(rows: pd.DataFrame, data: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return for each evaluation set its rows: of its sources, the same number a class, the first in hash order."""
    chosen, free, classes = {}, rows, sorted(data["labels"])
    for name, wanted in data["evaluation_sets"].items():
        candidates = free[free["source"].isin(wanted["sources"])]
        parts = []
        for place, label in enumerate(classes):
            count = wanted["rows"] // len(classes) + (place < wanted["rows"] % len(classes))
            here = candidates[candidates["label"] == label]
            if len(here) < count:
                raise DataError(
                    f"data.evaluation_sets.{name}.rows: {wanted['rows']} needs {count} different texts of class "
                    f"{data['labels'][label]!r}; sources {', '.join(wanted['sources'])} have {len(here)}. "
                    f"Ask for at most {len(classes) * len(here)}, or add rows."
                )
            parts.append(_first(here, count, name))
        chosen[name] = pd.concat(parts)
        free = free[~free["row_id"].isin(chosen[name]["row_id"])]
    return chosen


def unknown_splits(raw: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about values of the file's split column that are no split, or nothing."""
    bad = sorted(set(task_rows(raw, data)["split"]) - set(SPLITS))
    if not bad:
        return []
    near = difflib.get_close_matches(bad[0], SPLITS, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return [
        f"column {data['columns']['split']!r} (data.columns.split) has {bad[0]!r}{hint} Allowed: {', '.join(SPLITS)}."
    ]


def repeated_over_splits(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return row_id, text and split (`test, train`) of each text that the file's split column puts in two splits."""
    rows = task_rows(raw, data)
    text = rows["text"].map(clean_text)
    rows = rows.assign(text=text, row_id=text.map(cleaned_row_id)).sort_values(["row_id", "split"])
    spread = rows.groupby("row_id").agg(text=("text", "first"), split=("split", lambda of: ", ".join(of.unique())))
    return spread[spread["split"].str.contains(", ", regex=False)].reset_index()


def task_rows(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows whose source belongs to the task."""
    return raw if data["task_sources"] is None else raw[raw["source"].isin(data["task_sources"])]


def _check_given_split(raw: pd.DataFrame, data: Mapping[str, Any]) -> None:
    """Raise DataError if the file's own split names no split, or one text stands in two of them."""
    problems = unknown_splits(raw, data)
    if problems:
        raise DataError(problems[0])
    repeated = repeated_over_splits(raw, data)
    if len(repeated):
        text, splits = shorten(repeated.at[0, "text"]), str(repeated.at[0, "split"])
        raise DataError(f"{len(repeated)} texts stand in two splits, e.g. {text!r} in {splits}; keep one of each.")


def _check_classes(sets: Mapping[str, pd.DataFrame], labels: Mapping[int, str]) -> None:
    for name in SPLITS:
        for label, words in sorted(labels.items()):
            if not (sets[name]["label"] == label).any():
                raise DataError(
                    f"set {name} has {len(sets[name])} rows and none of class {words!r}; every class is needed in "
                    "train, validation and test. Add rows of it, or raise data.splits."
                )


def _without_near(rows: pd.DataFrame, held: list[str], threshold: float) -> pd.DataFrame:
    near = near_held(rows["text"].tolist(), held, threshold)
    return rows[[place not in near for place in range(len(rows))]]


def _calibration(train: pd.DataFrame, count: int) -> pd.DataFrame:
    if len(train) < count:
        raise DataError(f"data.calibration_rows: {count} asked; train has {len(train)}. Lower it, or add rows.")
    return _first(train, count, "calibration").assign(label=NO_LABEL)


def _first(rows: pd.DataFrame, count: int, purpose: str) -> pd.DataFrame:
    """Return the first `count` rows in the hash order of `purpose`, not that of the row_id, which chose the split."""
    order = [hash_order(row, purpose) for row in rows["row_id"].tolist()]
    return rows.iloc[sorted(range(len(order)), key=order.__getitem__)[:count]]
