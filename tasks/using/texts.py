"""The texts of a person's file, row by row: read as kindly as `compactlm init` reads a table, and never whole in memory.

A file is gone through twice. The first time nothing is kept: its rows are counted, and what cannot be read is said before a
model is loaded.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from tasks.data.faults import did_you_mean
from tasks.drafting.raw import Raw
from tasks.drafting.roles import TEXT_NAMES, text_columns
from tasks.errors import DataError, UserError
from tasks.using.forms import LINES, SAMPLE_ROWS, Form, Row, form_of

STANDARD_INPUT: Final = "-"


@dataclass(frozen=True)
class Texts:
    """The rows of a file, of which the column `text` holds the texts; `notes` say what had to be guessed.

    `columns` are those of all rows, in their order.
    """

    name: str
    columns: tuple[str, ...]
    text: str
    rows: int
    notes: tuple[str, ...]
    read: Callable[[], Iterator[Row]]

    def batches(self, count: int) -> Iterator[list[Row]]:
        """Yield the rows in their order, so many at a time."""
        rows = self.read()
        while batch := list(islice(rows, count)):
            yield batch


@contextmanager
def open_texts(given: str, column: str | None = None, usual: str | None = None) -> Iterator[Texts]:
    """Give the texts of a file, or of standard input where `-` is given; DataError or UserError where there are none.

    `column` is the one that holds them, as the person says; `usual` is tried first where nobody says it.
    """
    with ExitStack() as stack:
        place, name = Path(given).expanduser(), given
        if given == STANDARD_INPUT:
            place, name = stack.enter_context(_kept(sys.stdin.buffer)), "standard input"
        elif place.is_dir():
            raise UserError(f"{given}: is a folder; give a file of texts: .csv, .tsv, .jsonl, .parquet or .txt")
        elif not place.exists():
            raise UserError(f"{given}: there is no such file; give one, or - for standard input")
        elif not place.is_file():  # a pipe can be read once
            place = stack.enter_context(_kept(stack.enter_context(place.open("rb"))))
        try:
            form = form_of(place, name, column)
            text = _text_column(form, column, usual, name)
            guessed = [f"texts are those of the column {text!r}"] if column is None and text not in (usual, LINES) else []
            yield _counted(form, text, name, (*form.notes, *guessed))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{name}: not readable as gzip ({error}); write or copy the file anew") from None


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[Path]:
    """Give a file with all that a stream holds."""
    with tempfile.NamedTemporaryFile(prefix="compactlm-") as file:
        shutil.copyfileobj(stream, file)
        file.flush()
        yield Path(file.name)


def _text_column(form: Form, column: str | None, usual: str | None, name: str) -> str:
    """Return the column of the texts: the one that is said, or usual, or called as texts are, or that looks like texts."""
    names = form.names
    if column is not None:
        if column not in names:
            near = did_you_mean(column, list(names))
            raise DataError(f"--column text={column}: {name} has no such column{near} Columns: {', '.join(names)}")
        return column
    if usual in names:
        return str(usual)
    called = {each.strip().casefold(): each for each in reversed(names)}
    sample = list(islice(form.read(), SAMPLE_ROWS))
    found = text_columns(_as_raw(names, sample))  # which refuses pairs
    known = next((called[each] for each in TEXT_NAMES if each in called), None)
    if known is None and len(names) == 1:
        known = names[0]
    if known is not None:
        return known
    if not found:
        raise DataError(f"{name}: no column holds texts (columns: {', '.join(names)}); name one with --column text=NAME")
    if len(found) > 1:
        raise DataError(f"{name}: columns {', '.join(found)} may hold the texts; name one with --column text={found[0]}")
    return found[0]


def _as_raw(names: Sequence[str], sample: Sequence[Row]) -> Raw:
    """Return the columns of some rows that hold single values, as text."""
    columns = {name: [row.get(name) for row in sample] for name in names}
    plain = {name: cells for name, cells in columns.items() if not any(isinstance(cell, list | dict) for cell in cells)}
    return Raw({name: ["" if cell is None else str(cell) for cell in cells] for name, cells in plain.items()}, len(sample))


def _counted(form: Form, text: str, name: str, notes: tuple[str, ...]) -> Texts:
    """Return the texts of a file of which each row was looked at; DataError for a cell that is no text."""
    columns, rows = dict.fromkeys(form.names), 0
    for rows, row in enumerate(form.read(), start=1):
        text_of(row, text, name, rows)
        if len(row) != len(columns) or not columns.keys() >= row.keys():
            columns.update(dict.fromkeys(row))
    if not rows:
        raise DataError(f"{name}: holds no row below its header; give texts")
    return Texts(name, tuple(columns), text, rows, notes, form.read)


def text_of(row: Row, column: str, name: str = "", number: int = 0) -> str:
    """Return the text of a row, '' where it has none; DataError, which calls the file `name`, for a cell that is no text."""
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        raise DataError(f"{name}: row {number}: {column!r} is {_kind(value)}, not a string; name the column of the texts")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise DataError(f"{name}: row {number}: {column!r} holds half of a surrogate pair, which is no character")
    return value


def _kind(value: object) -> str:
    kinds: dict[type, str] = {list: "a list", dict: "an object", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}")
