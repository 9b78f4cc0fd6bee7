"""A file or folder as a person has it, read more kindly than a run does: what had to be guessed is said.

A run is strict, since a table that is half understood trains on. Here the same table is understood once, with what that took.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from tasks.data.sources import OTHERS, data_file, is_text_folder, kind_of
from tasks.data.tables import UTF16, Table, scan_table
from tasks.errors import DataError

SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DELIMITED: Final = (".csv", ".tsv", ".txt", ".data", ".dat")
TRIED_LINES: Final = 500
FEW_ROWS: Final = 20  # of which each value may be the only one of its kind
LONG_NAME: Final = 60  # characters; what is longer is no name of a column
SPLITS: Final = {  # how a folder or a cell names one of the three sets
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}

Cells = dict[str, list[str]]


@dataclass(frozen=True)
class Raw:
    """The columns of a table as text, what was guessed to read it, and whether a run reads the very file in the same way.

    `unusable` are columns that hold no single values (lists, objects) -> why. `classes` are the names that the file itself
    gives its labels 0, 1, ...
    """

    columns: Cells
    rows: int
    notes: tuple[str, ...] = ()
    as_it_is: bool = True
    unusable: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def read_raw(place: Path) -> Raw:
    """Return what a file, or a folder with one table or with a folder of .txt files for each class, holds.

    Raises DataError or SourceError where no table can be made of it.
    """
    if place.is_dir() and is_text_folder(place):
        return _class_folders(place)
    if place.is_dir():
        return read_raw(data_file(place, "DATA"))
    kind = kind_of(place)
    if kind in (".parquet", ".jsonl", ".ndjson"):
        return _structured(place)
    if place.suffix.lower() == ".json":
        return _json_array(place)
    if place.suffix.lower() in OTHERS:
        raise DataError(f"{place}: is not read; {OTHERS[place.suffix.lower()]}")
    if kind or place.suffix.lower() in DELIMITED:
        return _delimited(place)
    raise DataError(
        f"{place}: a table is needed (.csv, .tsv, .txt with separators, .parquet, .jsonl, .json), or a folder of texts"
    )


# JSON and Parquet


def _structured(place: Path) -> Raw:
    """Return a Parquet or JSON lines file, column by column: one that holds no single values is named as unusable."""
    columns: Cells = {}
    unusable: dict[str, str] = {}
    rows = 0
    classes: tuple[str, ...] = ()
    for name in scan_table(place, {}).names:
        try:
            table: Table = scan_table(place, {"label": name})
        except DataError as error:
            unusable[name] = str(error)
            continue
        rows = table.rows
        if table.faults:
            unusable[name] = next(iter(table.faults.values()))
            continue
        columns[name], classes = table.cells[name], table.classes or classes
    return Raw(columns, rows, unusable=unusable, classes=classes)


def _json_array(place: Path) -> Raw:
    """Return a .json file as a table: what it nests is named as unusable."""
    records = json_records(place)
    names = list(dict.fromkeys(name for record in records for name in record))
    nested = {name for record in records for name, cell in record.items() if isinstance(cell, list | dict)}
    columns = {name: [_text(record.get(name)) for record in records] for name in names if name not in nested}
    unusable = dict.fromkeys(sorted(nested), "holds lists or objects")
    return Raw(columns, len(records), ("a list of objects, which a run reads as rows of a table",), False, unusable)


def json_records(place: Path) -> list[dict[str, Any]]:
    """Return the objects of a .json file that is a list of them, or an object with one such list; DataError otherwise."""
    try:
        value = json.loads(place.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not readable as JSON: {error}; write one object a line in a .jsonl file") from None
    lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else [value]
    records = lists[0] if len(lists) == 1 else None
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{place}: a list of objects is needed; write one object a line in a .jsonl file")
    return records


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# Folders of texts


def _class_folders(place: Path) -> Raw:
    """Return a folder whose folders are classes, or sets with folders of classes; DataError for texts without one."""
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() == ".txt" and not path.name.startswith("._"))
    depths = {len(path.relative_to(place).parts) for path in files}
    if depths == {1}:
        raise DataError(
            f"{place}: {len(files)} texts without classes; for a classifier put the texts of each class into a folder of its "
            f"name; for a language model: compactlm run --params params/gpt2-tiny.yaml --set data.source=path:{place}"
        )
    columns: Cells = {"text": [], "label": []}
    notes = ["a folder of texts; the folder of a text is its label"]
    sets = {path.relative_to(place).parts[0].casefold() for path in files}
    with_sets = min(depths) >= 3 and sets <= SPLITS.keys()
    if with_sets:
        columns["split"] = []
        notes = ["folders of texts for each set and class; the last folder of a text is its label"]
    others: Counter[str] = Counter()
    for path in files:
        text, encoding = _decoded(path.read_bytes())
        others[encoding] += 1
        columns["text"].append(" ".join(text.split()))
        columns["label"].append(path.parent.name)
        if with_sets:
            columns["split"].append(path.relative_to(place).parts[0])
    if foreign := [f"{count:,} in {name}" for name, count in others.items() if name != "UTF-8"]:
        notes.append(f"of {len(files):,} texts {', '.join(foreign)}, not UTF-8")
    return Raw(columns, len(files), tuple(notes), as_it_is=False)


# Separated values


def _delimited(place: Path) -> Raw:
    content = gzip.decompress(place.read_bytes()) if place.suffix.lower() == ".gz" else place.read_bytes()
    text, encoding = _decoded(content)
    notes = [] if encoding == "UTF-8" else [f"encoding {encoding}, not UTF-8"]
    separator = separator_of(text)
    rows = read_rows(text, separator).rows
    if not rows:
        raise DataError(f"{place}: is empty; give a table with texts and labels")
    names, named = names_of(rows)
    width = len(names)
    body = rows[1:] if named else rows
    wrong = sum(len(row) > width for row in body)
    if not named:
        notes.append("no header; the columns are called column_1, column_2, ...")
    if wrong:
        notes.append(f"{wrong:,} of {len(body):,} rows have more fields than the others and are left out")
        body = [row for row in body if len(row) <= width]
    columns = {name: [row[at] if at < len(row) else "" for row in body] for at, name in enumerate(names)}
    raw = Raw(columns, len(body), tuple(notes))
    if reason := _strict_reader_differs(place, raw):
        notes = notes or [f"{SEPARATORS[separator]}-separated; {reason}"]
        return replace(raw, notes=tuple(notes), as_it_is=False)
    return raw


def _strict_reader_differs(place: Path, raw: Raw) -> str:
    """Return why a run would not read the file in the same way; '' where it does."""
    if not kind_of(place):
        return f"a run reads .csv and .tsv, not {place.suffix}"
    try:
        table = scan_table(place, {name: name for name in raw.columns})
    except DataError as error:
        return f"a run refuses the file as it is ({str(error).splitlines()[0]})"
    return "" if table.cells == raw.columns else "a run would cut its rows in another way"


def _decoded(content: bytes) -> tuple[str, str]:
    """Return bytes as text, with the name of their encoding: UTF-8, UTF-16 by its mark, else Windows-1252."""
    if content.startswith(UTF16):
        return content.decode("utf-16", errors="replace"), "UTF-16"
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "Windows-1252"


def separator_of(text: str) -> str:
    """Return the separator with which most of the first rows have the same number of fields, two or more; else a comma.

    Of equals the one that gives fewer fields: a comma stands in sentences, too.
    """
    head = "".join(io.StringIO(text, newline="").readlines()[:TRIED_LINES])

    def score(separator: str) -> tuple[float, int]:
        widths = Counter(map(len, read_rows(head, separator).rows))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        return (count / widths.total() if width > 1 else 0.0, -width)

    return max(SEPARATORS, key=score)


class Rows(NamedTuple):
    """Rows of separated values, and how quote marks were read: `csv.QUOTE_MINIMAL` or, as signs of the text, `csv.QUOTE_NONE`."""

    rows: list[list[str]]
    quoting: Any


def read_rows(text: str, separator: str) -> Rows:
    """Return the rows of a text but for those without any sign; quote marks are signs of the text where that makes even rows."""
    csv.field_size_limit(sys.maxsize)
    quoted = _read(text, separator, csv.QUOTE_MINIMAL)
    if '"' not in text or separator == ",":
        return Rows(quoted, csv.QUOTE_MINIMAL)
    plain = _read(text, separator, csv.QUOTE_NONE)
    even = _raggedness(plain) < _raggedness(quoted)
    return Rows(plain, csv.QUOTE_NONE) if even else Rows(quoted, csv.QUOTE_MINIMAL)


def _read(text: str, separator: str, quoting: Any) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    return [row for row in reader if any(cell.strip() for cell in row)]


def _raggedness(rows: Sequence[Sequence[str]]) -> float:
    """Return the share of rows with another number of fields than most, or with a line break in a field."""
    width = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
    return sum(len(row) != width or any("\n" in cell for cell in row) for row in rows) / max(1, len(rows))


def names_of(rows: Sequence[Sequence[str]]) -> tuple[list[str], bool]:
    """Return the names of the columns, each once, and whether the first row names them; else they are column_1, column_2, ..."""
    width = Counter(map(len, rows)).most_common(1)[0][0]
    named = has_header(rows)
    if named and len(rows[0]) > width:  # rows end in empty cells that nobody wrote
        width = len(rows[0])
    names = [name.strip() or f"column_{number}" for number, name in enumerate(rows[0], 1)] if named else []
    names = [*names, *(f"column_{number}" for number in range(len(names) + 1, width + 1))]
    if len(set(names)) < len(names):
        names = [f"{name}_{number}" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]
    return names, named


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names the columns: short words, each once, none a number nor a value of its own column."""
    first, body = [cell.strip() for cell in rows[0]], rows[1:]
    named = [cell for cell in first if cell]
    if not named or len(set(named)) < len(named) or any(len(cell) > LONG_NAME or is_number(cell) for cell in named):
        return False
    for at, cell in enumerate(first):
        values = [row[at].strip() for row in body if at < len(row)]
        repeats = len(set(values)) * 2 <= len(values) or len(values) < FEW_ROWS
        if cell and cell in values and repeats:  # a value of many rows, such as a label
            return False
    return True


def is_number(cell: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
