"""The data file as rows: strict UTF-8, and words for people about what is wrong with it."""

from __future__ import annotations

import difflib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.clean import clean_text
from tasks.errors import DataError

EXAMPLES: Final = 3  # in a message
_SHOWN: Final = 60


def read_table(path: Path) -> pd.DataFrame:
    """Return a .csv, .tsv, .parquet or .jsonl file as strings, one row a record, missing values as ''.

    Raises DataError if it cannot be read.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    text = _decode(path)
    if path.suffix == ".jsonl":
        return _read_jsonl(path, text)
    try:
        table = pd.read_csv(io.StringIO(text), sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path.name}: not readable as a table: {error}; mend the file") from None
    return table.fillna("").reset_index(drop=True)


def read_rows(path: Path, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return columns text, label (int), source and split ('' if none) of a file; raise DataError listing each fault.

    `data` is the section `data` of params.yaml as plain values.
    """
    table = read_table(path)
    problems = missing_columns(table, data["columns"]) or unknown_labels(table, data) + empty_texts(table, data)
    if problems:
        raise DataError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return to_rows(table, data)


def to_rows(table: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return text, label, source and split of a table without faults; without a source column the source is `data`."""
    columns, codes = data["columns"], label_codes(data["labels"])
    nothing = pd.Series("", index=table.index, dtype=str)
    return pd.DataFrame(
        {
            "text": table[columns["text"]],
            "label": table[columns["label"]].str.strip().map(codes).astype("int64"),
            "source": table[columns["source"]] if columns["source"] else nothing + "data",
            "split": table[columns["split"]].str.strip() if columns["split"] else nothing,
        }
    )


def label_codes(labels: Mapping[int, str]) -> dict[str, int]:
    """Return what a file may write for a label (its number or its name) -> the number."""
    return {str(number): number for number in labels} | {name: number for number, name in labels.items()}


def missing_columns(table: pd.DataFrame, columns: Mapping[str, str | None]) -> list[str]:
    """Return a sentence for each column that `data.columns` names and the table lacks."""
    names = [str(name) for name in table.columns]
    return [
        f"no column {name!r}, which data.columns.{role} names{did_you_mean(name, names, 0.5)} "
        f"The file has: {', '.join(names)}. Correct data.columns in params.yaml or the file."
        for role, name in columns.items()
        if name is not None and name not in names
    ]


def unknown_labels(table: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about labels that `data.labels` does not list, or nothing."""
    column, text = data["columns"]["label"], table[data["columns"]["text"]]
    values = table[column].str.strip()
    bad = values[~values.isin(list(label_codes(data["labels"])))]
    if bad.empty:
        return []
    frequent = sorted(Counter(bad).items(), key=lambda item: (-item[1], item[0]))[:5]
    counts = ", ".join(f"{value!r} x {count}" for value, count in frequent)
    examples = ", ".join(f"row {index + 1} {shorten(text[index])!r}" for index in bad.index[:EXAMPLES])
    allowed = ", ".join(f"{number} or {name}" for number, name in sorted(data["labels"].items()))
    return [
        f"column {column!r} has {_rows(len(bad))} with an unknown label ({counts}), "
        f"e.g. {examples}. Allowed: {allowed}. Correct them, or add the class to data.labels."
    ]


def empty_texts(table: pd.DataFrame, data: Mapping[str, Any]) -> list[str]:
    """Return a sentence about rows without text once cleaned, or nothing."""
    column = data["columns"]["text"]
    bad = table.index[[not clean_text(text) for text in table[column]]]
    if not len(bad):
        return []
    numbers = ", ".join(str(index + 1) for index in bad[:EXAMPLES])
    return [
        f"column {column!r} has {_rows(len(bad))} with an empty text (row {numbers}"
        f"{', ...' if len(bad) > EXAMPLES else ''}, counted from 1 without the header). Every row needs words: "
        "fill them in or delete the rows."
    ]


def shorten(value: object) -> str:
    """Return the start of a text, for a message."""
    text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def did_you_mean(word: str, allowed: Sequence[str], cutoff: float = 0.6) -> str:
    """Return `; did you mean 'x'?` for the allowed word that is nearest, or a full stop."""
    near = difflib.get_close_matches(word, allowed, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else "."


def texts_are(count: int) -> str:
    """Return how many texts a sentence is about, with its verb."""
    return "1 text is" if count == 1 else f"{count} texts are"


def examples(rows: pd.DataFrame, column: str) -> str:
    """Return the first few texts and where they stand, for a message."""
    return "; ".join(f"{shorten(text)!r} in {place}" for text, place in rows[["text", column]].head(EXAMPLES).to_numpy())


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name}: line {line} is not UTF-8 (byte {raw[error.start]:#04x} at offset {error.start}); save the "
            f"file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 {path.name}` if it came from an older Windows program"
        ) from None


def _read_jsonl(path: Path, text: str) -> pd.DataFrame:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path.name}: line {number} is not JSON ({error.msg}); write one object a line") from None
        if not isinstance(record, dict):
            raise DataError(f"{path.name}: line {number} is not an object; write one object a line")
        records.append({key: "" if value is None else str(value) for key, value in record.items()})
    return pd.DataFrame(records, dtype=str).fillna("")


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # Arrow does not look at the bytes of strings unless asked
        frame = table.to_pandas()
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: not readable as Parquet with UTF-8 text: {error}; write the file anew") from None
    strings: pd.DataFrame = frame.astype(object).where(frame.notna(), "").astype(str)
    return strings
