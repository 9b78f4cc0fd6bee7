"""A data file as cells of text: strict about encoding, quoting and types, since a table that is half understood trains on.

Of the columns that are not asked for the names alone are kept. Nothing here needs pandas, so a file is looked at in no time.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tasks.data.delimited import rows_of
from tasks.data.sources import kind_of
from tasks.errors import DataError

Columns = Mapping[str, str | None]  # what a column is used for -> its name
TEXT: Final = ("text", "text_pair")  # the uses of a column whose cells must be strings
EXAMPLES: Final = 3  # in a message
UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
CONTENTS: Final = {  # how a file begins that is not what its name says -> what it is, and what to do
    b"\x1f\x8b": "is compressed by gzip; let its name end in .gz, e.g. rows.csv.gz",
    b"PK\x03\x04": "is a zip archive or an Excel file; save the sheet as .csv (UTF-8), or unpack the archive",
    b"PAR1": "is a Parquet file; let its name end in .parquet",
    b"version https://git-lfs": "is a pointer of Git LFS, not the data; get the data with `git lfs pull`",
}


@dataclass(frozen=True)
class Table:
    """The names of all columns, the cells of those asked for, as text with '' for missing ones, and how many rows there are.

    `classes` are the names that the file itself gives its labels 0, 1, ..., as data sets of the Hugging Face hub do. `faults`
    are columns of which some cell is of no use -> the first such cell, in words; the cell is JSON then.
    """

    names: list[str]
    cells: dict[str, list[str]]
    rows: int
    classes: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, columns: Columns, head: int | None = None) -> Table:
    """Return what `scan_table` does; DataError also where a cell is of no use."""
    table = scan_table(path, columns, head)
    if table.faults:
        raise DataError("\n".join(table.faults.values()))
    return table


def scan_table(path: Path, columns: Columns, head: int | None = None) -> Table:
    """Return a .csv, .tsv, .parquet or .jsonl file, the first three may also be .ndjson and .gz; DataError if it is none.

    With `head` rows behind so many bytes are left out.
    """
    # what a text or a label is must hold for a column that is the source as well
    kind, wanted = kind_of(path), {name: role for role, name in reversed(list(columns.items())) if name is not None}
    if kind == ".parquet":
        return _parquet(path, wanted, head)
    text = _text(path, head)
    if kind in (".jsonl", ".ndjson"):
        return _json_lines(path, text, wanted)
    return _delimited(path, rows_of(path.name, text, "\t" if kind == ".tsv" else None, cut=head is not None), wanted)


# Text


def _text(path: Path, head: int | None) -> str:
    """Return a file decoded; with `head` no more than so many bytes, up to the end of a line."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            raw: bytes = file.read(-1 if head is None else head)
            if head is not None and len(raw) == head:
                raw = raw[: raw.rfind(b"\n") + 1] or raw + file.read()  # one line may be longer than the head
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name}: not readable as gzip ({error}); write or copy the file anew") from None
    for start, words in CONTENTS.items():
        if raw.startswith(start):
            raise DataError(f"{path.name} {words}")
    if raw.startswith(UTF16) or raw.count(b"\0", 0, 1000) * 4 > len(raw[:1000]):  # of letters every other byte
        raise DataError(f"{path.name} is UTF-16; save it as UTF-8: `iconv -f UTF-16 -t UTF-8 {path.name} > new.csv`")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise DataError(f"{path.name}: line {line} holds a NUL character, at which programs end a text; take it out")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name}: line {line} is not UTF-8 (byte {raw[error.start]:#04x} at offset {error.start}); save the "
            f"file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 {path.name}` if it came from an older Windows program"
        ) from None


def _delimited(path: Path, rows: list[list[str]], wanted: Mapping[str, str]) -> Table:
    names, *body = rows
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f"{path.name}: {names.count(name)} columns are called {name!r}; rename all but one")
    places = {name: names.index(name) for name in wanted if name in names}
    cells = {name: [row[at] if at < len(row) else "" for row in body] for name, at in places.items()}
    return Table(names, cells, len(body))


# JSON lines and Parquet


def _json_lines(path: Path, text: str, wanted: Mapping[str, str]) -> Table:
    names: dict[str, None] = {}
    cells: dict[str, list[str]] = {name: [] for name in wanted}
    faults: dict[str, str] = {}
    rows = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}: line {number}"
        try:
            record = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{where} is not JSON ({reason}); write one object a line") from None
        if not isinstance(record, dict):
            raise DataError(f"{where} is not an object; write one object a line")
        names.update(dict.fromkeys(record))
        for name, role in wanted.items():
            try:
                cells[name].append(_cell(record.get(name), role, f"{where}: {name!r}"))
            except DataError as error:
                faults.setdefault(name, str(error))
                cells[name].append(json.dumps(record.get(name)))
        rows += 1
    return Table(list(names), {name: values for name, values in cells.items() if name in names}, rows, faults=faults)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; ValueError where a key stands in it twice, of which readers take one or the other."""
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key stands there twice")
    return record


def _cell(value: object, role: str, where: str) -> str:
    """Return a value of JSON or Parquet as text; DataError for what is none, or no label, source or split."""
    if value is None:
        return ""
    if isinstance(value, list | dict) or (role in TEXT and not isinstance(value, str)):
        raise DataError(f"{where}, which data.columns.{role} names, {_is_what(value, role)}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start].encode("unicode_escape").decode()
        raise DataError(f"{where} holds half of a surrogate pair ({half}), which is no character; write the whole one") from None
    return text


def _is_what(value: object, role: str) -> str:
    """Return what a value is that cannot be a text, or a label, and what to do."""
    if role in TEXT:
        kinds = {list: "is a list (of tokens, or of several texts)", dict: "is an object", bool: "is true or false"}
        return f"{kinds.get(type(value), 'is a number')}, not a string; write the text itself"
    if role != "label":
        return "is no single value; write a string"
    if isinstance(value, list) and any(str(item)[:2] in ("B-", "I-") or item == "O" for item in value):
        return "is a list of tags, as for finding entities; this project compresses classifiers of whole texts"
    if isinstance(value, list):
        return "is a list, as for several labels a text; this project compresses classifiers with one label a text"
    return "is an object; write the label's name or number"


def _parquet(path: Path, wanted: Mapping[str, str], head: int | None) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names, here = file.schema_arrow.names, [name for name in wanted if name in file.schema_arrow.names]
            faults = [_type_fault(file.schema_arrow.field(name).type, name, wanted[name]) for name in here]
            if any(faults):
                raise DataError("\n".join(f"{path.name}: {fault}" for fault in faults if fault))
            batches = file.iter_batches(columns=here)
            first = [next(batches)] if head is not None and file.metadata.num_rows else list(batches)
            table = pa.Table.from_batches(first, pa.schema([file.schema_arrow.field(name) for name in here]))
            table.validate(full=True)  # Arrow does not look at the bytes of strings unless asked
            cells = {name: _texts(table.column(name)) for name in here}
            classes = _class_names(file.schema_arrow.metadata, next((n for n, role in wanted.items() if role == "label"), None))
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path.name}: not readable as Parquet with UTF-8 text: {error}; write the file anew") from None
    return Table(list(names), cells, table.num_rows, classes)


def _type_fault(kind: Any, name: str, role: str) -> str | None:
    """Return what is wrong with the Arrow type of a column, None if it can be read."""
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    strings = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    if any(fits(inner) for fits in (*strings, types.is_null)) if role in TEXT else not types.is_nested(inner):
        return None
    several = " A list of labels or tags is another task than one label a text." if types.is_nested(inner) else ""
    needed = "string" if role in TEXT else "string, integer or boolean"
    return f"column {name!r}, which data.columns.{role} names, is of type {kind}; a column of type {needed} is needed.{several}"


def _texts(column: Any) -> list[str]:
    """Return an Arrow column as text; bytes without a type are UTF-8."""
    values: list[Any] = column.to_pylist()
    return ["" if v is None else v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str | None) -> tuple[str, ...]:
    """Return the names that the Hugging Face library `datasets` keeps of the numbers of a label column."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
