"""The forms that a file of rows may have, told from its name and its head: separated values, lines, JSON, Parquet."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from tasks.data.sources import OTHERS, kind_of
from tasks.data.tables import CONTENTS, UTF16
from tasks.drafting.raw import SEPARATORS, json_records, names_of, read_rows, separator_of
from tasks.drafting.roles import TEXT_NAMES
from tasks.errors import DataError

HEAD_BYTES: Final = 1_000_000  # from which separator, header and the column of texts are told
SAMPLE_ROWS: Final = 500
LONGEST_FIELD: Final = 50_000_000  # characters; a longer one is a quote mark that nobody closed
GZIP: Final = b"\x1f\x8b"
PARQUET: Final = b"PAR1"
MAGIC_BYTES: Final = 64
LINES: Final = "text"  # what the column of a file of lines is called
EXCEL: Final = re.compile(r'sep=([^\w" \r\n])\r?\n')

Row = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """How the rows of a file are read: the columns that are known from its head, and what was guessed."""

    names: tuple[str, ...]
    read: Callable[[], Iterator[Row]]
    notes: tuple[str, ...] = ()


def form_of(place: Path, name: str, column: str | None) -> Form:
    """Return how a file is read: by what its name says, and where that says nothing by its head."""
    kind, suffix = kind_of(Path(name)), Path(name).suffix.lower()
    with place.open("rb") as file:
        begin = file.read(MAGIC_BYTES)
    if kind == ".parquet" or begin.startswith(PARQUET):
        return _parquet(place, name)
    if suffix in OTHERS and suffix != ".json":
        raise DataError(f"{name}: is not read; {OTHERS[suffix]}")
    for start, words in CONTENTS.items():
        if begin.startswith(start) and start != GZIP:
            raise DataError(f"{name} {words}")
    if suffix == ".json":
        records = json_records(place)
        return Form(_names(islice(records, SAMPLE_ROWS)), lambda: iter(records))
    encoding = _encoding(place, name)
    head, whole = _head(place, encoding)
    if not head.strip():
        raise DataError(f"{name}: is empty; give texts, a row or a line each")
    notes = () if encoding == "utf-8-sig" else (f"encoding {'UTF-16' if encoding == 'utf-16' else 'Windows-1252'}, not UTF-8",)
    if kind in (".jsonl", ".ndjson") or (not kind and _is_object(head)):
        form = _json_lines(place, name, encoding)
    elif kind or column is not None or _is_table(head):
        form = _delimited(_Head(place, name, encoding, head, whole), "\t" if kind == ".tsv" else None)
    else:
        form = Form((LINES,), lambda: _lines(place, encoding))
        notes = (*notes, "a text a line; of a table name the column: --column text=NAME")
    return Form(form.names, form.read, (*notes, *form.notes))


# Bytes


@contextmanager
def _open(place: Path) -> Iterator[BinaryIO]:
    with place.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as plain:
            yield plain  # type: ignore[misc]  # it reads bytes all the same


@contextmanager
def _decoded(place: Path, encoding: str, newline: str | None) -> Iterator[io.TextIOWrapper]:
    with _open(place) as file:
        yield io.TextIOWrapper(file, encoding=encoding, errors="replace", newline=newline)


def _encoding(place: Path, name: str) -> str:
    """Return the encoding of the whole file, looked at to its end: UTF-16 by its mark, UTF-8, else Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    encoding, lines = "utf-8-sig", 1
    with _open(place) as file:
        while part := file.read(HEAD_BYTES):
            if file.tell() == len(part) and part.startswith(UTF16):
                return "utf-16"
            if b"\0" in part:
                line = lines + part.count(b"\n", 0, part.index(b"\0"))
                raise DataError(f"{name}: line {line} holds a NUL character, so it is no text in UTF-8; save the file as UTF-8")
            lines += part.count(b"\n")
            if encoding == "utf-8-sig":
                try:
                    decoder.decode(part)
                except UnicodeDecodeError:
                    encoding = "cp1252"
    return encoding


def _head(place: Path, encoding: str) -> tuple[str, bool]:
    """Return the first characters of a file up to the end of a line, and whether they are all."""
    with _decoded(place, encoding, newline="") as file:
        head = file.read(HEAD_BYTES)
        if not file.read(1):
            return head, True
        return head[: head.rfind("\n") + 1] or head + file.readline(), False


# Lines, JSON lines, Parquet


def _lines(place: Path, encoding: str) -> Iterator[Row]:
    with _decoded(place, encoding, newline=None) as file:
        for line in file:
            yield {LINES: line.rstrip("\n")}


def _is_object(head: str) -> bool:
    line = next((line for line in head.split("\n") if line.strip()), "")
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(place: Path, name: str, encoding: str) -> Form:
    def read() -> Iterator[Row]:
        with _decoded(place, encoding, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{name}: line {number}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise DataError(f"{where} is not JSON ({reason}); write one object a line") from None
                if not isinstance(record, dict):
                    raise DataError(f"{where} is not an object; write one object a line")
                yield record

    return Form(_names(islice(read(), SAMPLE_ROWS)), read)


def _names(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for record in records for name in record))


def _parquet(place: Path, name: str) -> Form:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read() -> Iterator[Row]:
        try:
            with pq.ParquetFile(place) as file:
                for batch in file.iter_batches(batch_size=SAMPLE_ROWS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{name}: not readable as Parquet with UTF-8 text: {error}; write the file anew") from None

    try:
        with pq.ParquetFile(place) as file:
            return Form(tuple(file.schema_arrow.names), read)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: not readable as Parquet: {error}; write the file anew") from None


# Separated values


@dataclass(frozen=True)
class _Head:
    """A file of text with its first characters, and whether they are all of it."""

    place: Path
    name: str
    encoding: str
    text: str
    whole: bool


def _is_table(head: str) -> bool:
    """Return whether a file whose name does not say so holds a table: its header names texts, or tabs cut all lines alike."""
    if EXCEL.match(head):
        return True
    separator = separator_of(head)
    rows = read_rows(head, separator).rows
    named = any(cell.strip().casefold() in TEXT_NAMES for cell in rows[0])
    return named or (separator == "\t" and len(rows[0]) > 1 and len(set(map(len, rows))) == 1)


def _delimited(head: _Head, separator: str | None) -> Form:
    hint = EXCEL.match(head.text)
    text = head.text[hint.end() :] if hint else head.text
    separator = hint[1] if hint else separator or separator_of(text)
    rows, quoting = read_rows(text, separator)
    if not rows:
        raise DataError(f"{head.name}: is empty; give a table with texts")
    names, named = names_of(rows if head.whole or len(rows) < 3 else rows[:-1])  # the head may end within a row
    quoting = _strictly(text, separator, quoting, head.whole)
    notes = [] if separator in ",\t" else [f"{SEPARATORS.get(separator, repr(separator))}-separated"]
    if not named:
        notes.append(f"no header; the columns are called {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}")

    def read() -> Iterator[Row]:
        with _decoded(head.place, head.encoding, newline="") as file:
            if hint:
                file.readline()
            csv.field_size_limit(LONGEST_FIELD)
            reader = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
            yield from _rows(reader, names, named, head.name)

    return Form(tuple(names), read, tuple(notes))


def _strictly(text: str, separator: str, quoting: Any, whole: bool) -> Any:
    """Return how quote marks are read by rules that allow no doubt: as signs of the text where that alone makes even rows.

    A mark that opens a field and closes none would otherwise make one text of all that follows.
    """
    try:
        for _ in csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True):
            pass
    except csv.Error as error:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=csv.QUOTE_NONE)
        if (whole or "unexpected end" not in str(error)) and len({len(row) for row in lines if row}) == 1:
            return csv.QUOTE_NONE
    return quoting


def _rows(reader: Any, names: Sequence[str], named: bool, name: str) -> Iterator[Row]:
    """Yield the rows of a reader of the csv library below its header; DataError for one with more fields than columns."""
    width, begun = len(names), False
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{name}: line {line}: {error}; a field that begins with a quote mark ends with one") from None
        if row is None:
            return
        if not row or (width > 1 and len(row) == 1 and not row[0].strip()):  # a blank line is no row
            continue
        if named and not begun:
            begun = True
            continue
        if any(cell.strip() for cell in row[width:]):
            raise DataError(
                f"{name}: line {line} has {len(row)} fields, and the table {width} columns; put texts that hold the separator in "
                "quote marks"
            )
        yield dict(zip(names, [*row[:width], *[""] * (width - len(row))], strict=True))
