"""What is wrong with data, as far as its head and its label column show: looked at before a run, and whole by `validate_data`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tasks.data.faults import label_codes, missing_columns, read_labels, table_problems
from tasks.data.sources import data_file, is_text_folder, kind_of, text_files
from tasks.data.tables import Columns, Table, read_table
from tasks.errors import DataError, SourceError

HEAD: Final = 4_000_000  # bytes


def table_faults(place: Path, key: str, columns: Columns, labels: Mapping[int, str]) -> list[str]:
    """Return a sentence for each fault of a table of labelled texts at `place`, the file or folder that `key` names."""
    try:
        file = data_file(place, key)
        table = _head(file, columns)
        problems = table_problems(table, columns, labels)
        if not problems and file.stat().st_size > HEAD and _labels_are_doubtful(file, str(columns["label"]), labels):
            problems = table_problems(read_table(file, columns), columns, labels)
    except (DataError, SourceError) as error:
        return str(error).splitlines()
    except OSError as error:
        return [f"params.yaml: {key}: {place} cannot be read: {error}; see its permissions"]
    return [f"{file}: {problem}" for problem in problems]


def documents_faults(place: Path, key: str, columns: Columns | None) -> list[str]:
    """Return a sentence for each fault of documents: a table whose columns are named, or a folder of .txt files, without them."""
    columns_key = key.removesuffix("source") + "columns"
    try:
        if is_text_folder(place):
            empty = not any(file.stat().st_size for file in text_files(place, key).values())
            faults = [f"params.yaml: {columns_key}: {place} holds .txt files, which have no columns; write columns: null"]
            return (faults if columns is not None else []) + ([f"{place}: all .txt files are empty"] if empty else [])
        file = data_file(place, key)
        if columns is None:
            words = f"{file.name} is a table; name its columns, e.g. {{text: text, source: null}}"
            return [f"params.yaml: {columns_key}: {words}"]
        table = _head(file, columns)
    except (DataError, SourceError) as error:
        return str(error).splitlines()
    except OSError as error:
        return [f"params.yaml: {key}: {place} cannot be read: {error}; see its permissions"]
    problems = missing_columns(table.names, columns)
    if not problems and not any(text.strip() for text in table.cells[str(columns["text"])]):
        problems = [f"column {columns['text']!r} has no text in {table.rows} rows; add documents"]
    return [f"{file}: {problem}" for problem in problems]


def _head(file: Path, columns: Columns) -> Table:
    if file.stat().st_size > HEAD or file.suffix.lower() == ".gz":
        table = read_table(file, columns, HEAD)
        if table.rows:
            return table
    return read_table(file, columns)


def _labels_are_doubtful(file: Path, label: str, labels: Mapping[int, str]) -> bool:
    """Return whether the label column of a file of which the head is in order may hold another label.

    It is read in the quickest way: strict reading, which takes seconds, then has the last word.
    """
    import pyarrow as pa
    from pyarrow import csv

    if kind_of(file) == ".parquet":
        cells = read_table(file, {"label": label}).cells[label]
    elif file.suffix.lower() == ".csv":
        read = csv.ConvertOptions(include_columns=[label], column_types={label: pa.string()}, strings_can_be_null=False)
        try:
            table = csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=read)
        except (pa.ArrowException, KeyError):
            return True
        cells = table.column(label).to_pylist()
    else:
        return False
    return not set(read_labels(set(cells), codes := label_codes(labels))) <= set(codes)
