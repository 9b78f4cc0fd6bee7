"""Rows of fields between separators. Quote marks are a trap: texts have them too, and then whole rows are read as one field."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from tasks.errors import DataError

COMMAS: Final = (",", ";", "\t")  # what separates the fields of a .csv


def rows_of(name: str, text: str, separator: str | None, *, cut: bool) -> list[list[str]]:
    """Return the rows of a .csv or .tsv, the header first; quote marks are marks of quoting unless lines are rows only without.

    Without a `separator` it is the first of `COMMAS` that the header has. A text that is `cut` may end within a row. Raises
    DataError, which calls the file `name`.
    """
    if hint := re.match(r'sep=([^\w" \r\n])\r?\n', text):  # as Excel writes it before the header
        separator, text = hint[1], "\n" + text[hint.end() :]
    header = text.lstrip("\n\r").partition("\n")[0]
    separator = separator or next((mark for mark in COMMAS if mark in header), COMMAS[0])
    records = _records(text, separator, csv.QUOTE_MINIMAL)
    if cut and records.broken is not None and "unexpected end" in records.broken:
        records = _Records(records.rows, records.lines)  # the head ends within a row
    plain = _records(text, separator, csv.QUOTE_NONE) if '"' in text and _is_doubtful(records, text) else records
    if plain is not records and _lines_are_rows(plain, records):
        records = plain
    if not records.rows:
        raise DataError(f"{name} is empty; give a file with a header and rows")
    wide = records.ragged()
    if records.broken is not None:
        raise DataError(
            f"{name}: {records.broken}: a field that begins with a quote mark must end with one, and marks inside it are "
            'written twice (""), not with a backslash; mend the line'
        )
    if wide is not None:
        here, there = len(records.rows[wide]), len(records.rows[0])
        raise DataError(
            f"{name}: line {records.lines[wide]} has {here} fields, and the header has {there}; put texts that hold "
            f"{separator!r} in quote marks"
        )
    return records.rows


@dataclass(frozen=True)
class _Records:
    """The records of a text, the line on which each begins (from 1), and where and why reading ended early, if it did."""

    rows: list[list[str]]
    lines: list[int]
    broken: str | None = None

    def ragged(self) -> int | None:
        """Return the place of the first record that has more fields than the header, None if there is none."""
        width = len(self.rows[0]) if self.rows else 0
        wide = (i for i, row in enumerate(self.rows) if any(field.strip() for field in row[width:]))
        return next(wide, None)


def _records(text: str, separator: str, quoting: Any) -> _Records:
    csv.field_size_limit(sys.maxsize)  # a document may be a book
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    line, width = 1, 0
    try:
        for row in reader:
            if row and not (width > 1 and len(row) == 1 and not row[0].strip()):  # a blank line is no row
                rows.append(row)
                lines.append(line)
                width = width or len(row)
            line = reader.line_num + 1
    except csv.Error as error:
        return _Records(rows, lines, f"line {line}: {error}")
    return _Records(rows, lines)


def _is_doubtful(records: _Records, text: str) -> bool:
    """Return whether quoting failed, gave too many fields, or put several lines into one row."""
    lines = text.count("\n") if "\n" in text else text.count("\r")
    return records.broken is not None or records.ragged() is not None or len(records.rows) < lines


def _lines_are_rows(plain: _Records, quoted: _Records) -> bool:
    """Return whether a text is meant without quoting: each line has the header's fields, and quoting breaks it or joins rows.

    Lines that quoting joins are rows of their own where in some column each of them holds a value that other rows have too,
    and none a mark that is doubled, as in quoted text.
    """
    width = len(plain.rows[0]) if plain.rows else 0
    if width < 2 or any(len(row) != width for row in plain.rows) or quoted.rows[:1] != plain.rows[:1]:
        return False
    if quoted.broken is not None or quoted.ragged() is not None:
        return True
    ends = [*quoted.lines[1:], plain.lines[-1] + 1]
    joined = {line for start, end in zip(quoted.lines, ends, strict=True) if end - start > 1 for line in range(start, end)}
    inside = [row for line, row in zip(plain.lines, plain.rows, strict=True) if line in joined]
    if not inside or any('""' in field for row in inside for field in row):
        return False
    counts = [Counter(column) for column in zip(*set(map(tuple, plain.rows)), strict=True)]
    return any(all(counts[i][row[i]] > 1 for row in inside) for i in range(width))
