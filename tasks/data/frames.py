"""Sets of rows or documents: their names by content, the order in which they are drawn, and the files they stand in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from tasks.artifacts import NO_LABEL as NO_LABEL
from tasks.data.clean import clean_text, hash_order, row_id
from tasks.data.pairs import GROUP, PAIR_COLUMNS, SECOND, holds_pairs, joined_texts, tied

COLUMNS: Final = ("row_id", "text", "label", "source")
SETS_WITHOUT_CALIBRATION: Final = ("train", "validation", "test", "transfer")


def cleaned_rows(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with their texts cleaned, and named in the column row_id.

    Of pairs the column `group` becomes the name that rows share which have one first text, or are called the same in it.
    """
    rows = raw.assign(text=[clean_text(value) for value in raw["text"]])
    if holds_pairs(raw):
        rows = rows.assign(**{SECOND: [clean_text(value) for value in raw[SECOND]]})
        first = [row_id(value) for value in rows["text"]]
        named = [name or text for name, text in zip(rows[GROUP], first, strict=True)]
        rows[GROUP] = tied(first, named) if (rows[GROUP] != "").any() else first
    return rows.assign(row_id=[row_id(value) for value in joined_texts(rows)])


def columns_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns that a set made of such rows has."""
    return [*COLUMNS, *(PAIR_COLUMNS if holds_pairs(frame) else ())]


def in_hash_order(rows: pd.DataFrame, purpose: str) -> pd.DataFrame:
    """Return the rows in the hash order of `purpose`, not that of the row_id, which chose the set."""
    order = [hash_order(row, purpose) for row in rows["row_id"].tolist()]
    return rows.iloc[sorted(range(len(order)), key=order.__getitem__)]


def rows_sha256(row_ids: Iterable[str]) -> str:
    """Return the sha256 of the row ids, one a line, in their order: two evaluations with the same one can be paired."""
    return hashlib.sha256("".join(f"{row}\n" for row in row_ids).encode()).hexdigest()


def write_sets(sets: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each set as `<set>.parquet`, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in sets.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)


def read_sets(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the named sets of a folder."""
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
