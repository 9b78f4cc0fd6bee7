"""Rows of a file -> the sets of a run, chosen by the hash of the cleaned text alone.

So the order of rows and the addition of others do not move a sentence between train, validation and test, unless one
of the added is a near-duplicate of it: near-duplicates go together, where the smallest hash among them points.
Sets of a fixed size (evaluation, transfer, calibration) take the first rows in hash order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from tasks.data.faults import did_you_mean, texts_are
from tasks.data.frames import NO_LABEL, cleaned_rows, columns_of, in_hash_order
from tasks.data.near import clusters, near_held
from tasks.data.paired_transfer import paired_transfer
from tasks.data.pairs import GROUP, holds_pairs, joined_texts, tied
from tasks.data.read import examples
from tasks.data.stress import text_sets
from tasks.data.transfer import transfer_set
from tasks.errors import DataError

SPLITS: Final = ("train", "validation", "test")


@dataclass(frozen=True)
class Unlabelled:
    """Texts of other sources than the rows, each name -> row_id -> text: to measure on, and to learn from."""

    stress: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    broad: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def make_sets(raw: pd.DataFrame, data: Mapping[str, Any], others: Unlabelled | None = None) -> dict[str, pd.DataFrame]:
    """Return the sets of a run by name, each with columns row_id, text, label, source, sorted by row_id.

    Sets of pairs have `text_pair` and `group` as well, and no group stands in train and in a set that is measured.

    `raw` comes from `tasks.data.read.read_rows`, `data` is the section `data` of params.yaml as plain values. Raises
    DataError if a set cannot be filled.
    """
    others = others or Unlabelled()
    rows, threshold = unique_rows(raw), data["near_duplicate_similarity"]
    _check_sources(rows, data)
    evaluation = _evaluation_sets(rows, data)
    taken = {row for chosen in evaluation.values() for row in chosen["row_id"]}
    task = task_rows(rows[~rows["row_id"].isin(taken)], data)
    if data["columns"]["split"]:
        problems = unknown_splits(raw, data) + (repeated_over_splits(raw, data) or groups_over_splits(raw, data))
        if problems:
            raise DataError("\n".join(problems))
    else:
        task = task.assign(split=_split(task, data["splits"], threshold))
    sets = {name: task[task["split"] == name] for name in SPLITS} | evaluation
    _check_classes(sets, data["labels"])
    held = pd.concat([sets["validation"], sets["test"], *evaluation.values()])
    for foreign in evaluation.values():
        sets["train"] = _without_near(sets["train"], foreign, threshold)
    held_texts = joined_texts(held)
    if others.stress:
        labelled = [*sets["train"]["text"], *held_texts]
        stress = text_sets(others.stress, data["stress"], set(rows["row_id"]), labelled, threshold)
        sets |= stress
        held_texts += [text for chosen in stress.values() for text in chosen["text"]]
    rest = rows[~rows["row_id"].isin(taken | set(task["row_id"]))]
    if holds_pairs(rows):
        sets["transfer"] = paired_transfer(rest, sets["train"], held, data["transfer"], threshold)
    else:
        sets["transfer"] = transfer_set(rest, sets["train"], held_texts, data["transfer"], threshold, others.broad)
    sets["calibration"] = _calibration(sets["train"], data["calibration_rows"])
    return {name: rows[columns_of(rows)].sort_values("row_id", ignore_index=True) for name, rows in sets.items()}


def unique_rows(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the rows cleaned, with their row_id, one a text; texts that came with different labels are left out."""
    rows = cleaned_rows(raw)
    rows = rows[rows.groupby("row_id")["label"].transform("nunique") == 1]
    return rows.sort_values(["row_id", "source", "split", "text"]).drop_duplicates("row_id", ignore_index=True)


def _split(rows: pd.DataFrame, shares: Mapping[str, float], threshold: float) -> list[str]:
    """Return train, validation or test for each row; of pairs a group with all that is nearly equal to one of it is in one."""
    texts = joined_texts(rows)
    if not holds_pairs(rows):
        return split_of(rows["row_id"].tolist(), texts, shares, threshold)
    near = [str(root) for root in clusters(texts, threshold)]
    return [set_at(group, shares) for group in tied(rows[GROUP].tolist(), near)]


def split_of(row_ids: list[str], texts: list[str], shares: Mapping[str, float], threshold: float) -> list[str]:
    """Return train, validation or test for each row, by the smallest hash of its cluster of near-duplicates."""
    cluster = clusters(texts, threshold)
    smallest: dict[int, str] = {}
    for row, root in zip(row_ids, cluster, strict=True):
        smallest[root] = min(smallest.get(root, row), row)
    return [set_at(smallest[root], shares) for root in cluster]


def set_at(row: str, shares: Mapping[str, float]) -> str:
    """Return train, validation or test: the set to which a row_id, as a share of all there can be, points."""
    place = int(row, 16) / 2**64
    if place < shares["test"]:
        return "test"
    return "validation" if place < shares["test"] + shares["validation"] else "train"


def _check_sources(rows: pd.DataFrame, data: Mapping[str, Any]) -> None:
    """Raise DataError if params.yaml names a source that no row has."""
    known = sorted(rows["source"].unique())
    asked = {"data.task_sources": data["task_sources"] or [], "data.transfer.sources": data["transfer"]["sources"]}
    further = data["evaluation_sets"].items()
    asked |= {f"data.evaluation_sets.{name}.sources": wanted["sources"] for name, wanted in further}
    for key, sources in asked.items():
        for source in sources:
            if source not in known:
                hint = did_you_mean(source, known)
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
            parts.append(in_hash_order(here, name).head(count))
        chosen[name] = pd.concat(parts)
        free = free[~free["row_id"].isin(chosen[name]["row_id"])]
    return chosen


def unknown_splits(raw: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about values of the file's split column that are no split, or nothing."""
    bad = sorted(set(task_rows(raw, data)["split"]) - set(SPLITS))
    return [
        f"column {data['columns']['split']!r} (data.columns.split) has {value!r}{did_you_mean(value, SPLITS, 0.4)} "
        f"Allowed: {', '.join(SPLITS)}."
        for value in bad[:1]
    ]


def split_texts(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return row_id, text and split of the task's rows, one line a text and split of the file's own split column."""
    rows = cleaned_rows(task_rows(raw, data))
    rows = rows.assign(text=joined_texts(rows))[["row_id", "text", "split"]]
    return rows.drop_duplicates(["row_id", "split"], ignore_index=True)


def groups_over_splits(raw: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about groups of pairs that the file's split column divides, or nothing."""
    rows = cleaned_rows(task_rows(raw, data))
    if not holds_pairs(rows):
        return []
    spread = rows.groupby(GROUP).agg(text=("text", "first"), split=("split", lambda names: ", ".join(sorted(set(names)))))
    divided = spread[spread["split"].str.contains(", ", regex=False)]
    if divided.empty:
        return []
    return [
        f"{len(divided)} groups of pairs stand in two splits, e.g. {examples(divided, 'split')}. Rows of one first text, or of "
        "one value of data.columns.group, tell of each other: keep them in one split, or set data.columns.split: null"
    ]


def repeated_over_splits(raw: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about texts that the file's split column puts in two splits, or nothing."""
    texts = split_texts(raw, data).sort_values(["row_id", "split"])
    spread = texts.groupby("row_id").agg(text=("text", "first"), split=("split", ", ".join))
    repeated = spread[spread["split"].str.contains(", ", regex=False)]
    if repeated.empty:
        return []
    return [
        f"{texts_are(len(repeated))} in two splits: {examples(repeated, 'split')}. What a model has "
        "trained on cannot test it: keep each text in one split, or set data.columns.split: null to split by content."
    ]


def task_rows(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows whose source belongs to the task."""
    return raw if data["task_sources"] is None else raw[raw["source"].isin(data["task_sources"])]


def _check_classes(sets: Mapping[str, pd.DataFrame], labels: Mapping[int, str]) -> None:
    for name in SPLITS:
        for label, words in sorted(labels.items()):
            if not (sets[name]["label"] == label).any():
                raise DataError(
                    f"set {name} has {len(sets[name])} rows and none of class {words!r}; every class is needed in "
                    "train, validation and test. Add rows of it, or raise data.splits."
                )


def _without_near(rows: pd.DataFrame, held: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that are not nearly equal to a held-out one; of pairs none of a group that has held-out rows."""
    if holds_pairs(rows):
        rows = rows[~rows[GROUP].isin(held[GROUP])]
    near = near_held(joined_texts(rows), joined_texts(held), threshold)
    return rows[[place not in near for place in range(len(rows))]]


def _calibration(train: pd.DataFrame, count: int) -> pd.DataFrame:
    if len(train) < count:
        raise DataError(f"data.calibration_rows: {count} asked; train has {len(train)}. Lower it, or add rows.")
    return in_hash_order(train, "calibration").head(count).assign(label=NO_LABEL)
