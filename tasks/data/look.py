"""What is wrong with data, as far as its head and its label column show: looked at before a run, and whole by `validate_data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tasks.data.faults import label_codes, missing_columns, read_labels, table_problems
from tasks.data.sources import data_file, is_text_folder, kind_of, text_files
from tasks.data.tables import Columns, Table, read_table, scan_table
from tasks.errors import DataError, SourceError

HEAD: Final = 4_000_000  # bytes


def table_faults(place: Path, key: str, columns: Columns, labels: Mapping[int, str]) -> list[str]:
    """Return a sentence for each fault of a table of labelled texts at `place`, the file or folder that `key` names.

    Columns and labels may come from a params.yaml with faults: what is not said there as it must be is not looked for here.
    """
    try:
        file = data_file(place, key)
    except SourceError as error:
        return [str(error)]

    def problems() -> list[str]:
        named = {role: name for role, name in columns.items() if isinstance(name, str)}
        table = _head(file, named)
        if not {"text", "label"} <= named.keys() or {*map(type, labels)} != {int} or {*map(type, labels.values())} != {str}:
            return [*_of_cells(table, file), *missing_columns(table.names, named)]
        first = [*_of_cells(table, file), *table_problems(table, columns, labels)]
        if first or file.stat().st_size <= HEAD or not _labels_are_doubtful(file, str(columns["label"]), labels):
            return first
        return table_problems(read_table(file, columns), columns, labels)

    return _of_file(file, problems)


def documents_faults(place: Path, key: str, columns: Columns | None) -> list[str]:
    """Return a sentence for each fault of documents: a table whose columns are named, or a folder of .txt files, without them."""
    columns_key = f"params.yaml: {key.removesuffix('source')}columns: "
    if is_text_folder(place):
        faults = [] if columns is None else [f"{columns_key}{place} holds .txt files, which have no columns; write columns: null"]
        if any(file.stat().st_size for file in text_files(place, key).values()):
            return faults
        return [*faults, f"{place}: all .txt files are empty; add documents"]
    try:
        file = data_file(place, key)
    except SourceError as error:
        return [str(error)]
    if columns is None:
        return [f"{columns_key}{file.name} is a table; name its columns, e.g. {{text: text, source: null}}"]

    def problems() -> list[str]:
        table = _head(file, columns)
        missing = [*_of_cells(table, file), *missing_columns(table.names, columns)]
        if missing or any(text.strip() for text in table.cells[str(columns["text"])]):
            return missing
        return [f"column {columns['text']!r} has no text in {table.rows} rows; add documents"]

    return _of_file(file, problems)


def _of_file(file: Path, problems: Callable[[], list[str]]) -> list[str]:
    """Return what is wrong with a file, a sentence a line that begins with its path, also where it cannot be read."""
    try:
        return [f"{file}: {problem}" for problem in problems()]
    except DataError as error:  # whose lines begin with the file's name
        return [f"{file.parent}/{line}" for line in str(error).splitlines()]
    except OSError as error:
        return [f"{file} cannot be read: {error.strerror or error}; see its permissions"]


def _of_cells(table: Table, file: Path) -> list[str]:
    """Return what is wrong with single cells, without the file's name."""
    return [fault.removeprefix(f"{file.name}: ") for fault in table.faults.values()]


def _head(file: Path, columns: Columns) -> Table:
    if file.stat().st_size > HEAD or file.suffix.lower() == ".gz":
        table = scan_table(file, columns, HEAD)
        if table.rows:
            return table
    return scan_table(file, columns)


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
