"""The data file as rows of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.faults import label_codes, read_labels, shorten, table_problems, tidy_label
from tasks.data.pairs import GROUP, SECOND, shown
from tasks.data.tables import EXAMPLES, Table, read_table
from tasks.errors import DataError


def read_rows(path: Path, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return columns text, label (int), source and split ('' if none) of a file; raise DataError listing each fault.

    Of pairs also text_pair and group ('' if none).
    `data` is the section `data` of params.yaml as plain values.
    """
    table = read_table(path, data["columns"])
    problems = table_problems(table, data["columns"], data["labels"])
    if problems:
        raise DataError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return to_rows(table, data)


def frame_of(table: Table) -> pd.DataFrame:
    """Return a table as a frame of strings; the columns that were not asked for are empty."""
    return pd.DataFrame({name: table.cells.get(name, "") for name in table.names}, index=range(table.rows), dtype=str)


def to_rows(table: Table, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return text, label, source and split of a table without faults; without a source column the source is `data`.

    Of pairs also text_pair and group.
    """
    columns, codes = data["columns"], label_codes(data["labels"])
    frame = frame_of(table)
    nothing = pd.Series("", index=frame.index, dtype=str)
    second, group = columns.get(SECOND), columns.get(GROUP)
    pairs = {} if second is None else {SECOND: frame[second], GROUP: frame[group].map(tidy_label) if group else nothing}
    return pd.DataFrame(
        {
            "text": frame[columns["text"]],
            "label": [codes[label] for label in read_labels(table.cells[columns["label"]], codes)],
            "source": frame[columns["source"]].map(tidy_label) if columns["source"] else nothing + "data",
            "split": frame[columns["split"]].str.strip() if columns["split"] else nothing,
            **pairs,
        }
    ).astype({"label": "int64"})


def examples(rows: pd.DataFrame, column: str) -> str:
    """Return the first few texts and where they stand, for a message."""
    return "; ".join(f"{shorten(shown(text))!r} in {place}" for text, place in rows[["text", column]].head(EXAMPLES).to_numpy())
