"""What is wrong with the cells of a table, in sentences for people; and labels as data files write them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tasks.data.clean import clean_text
from tasks.data.tables import EXAMPLES, TEXT, Columns, Table

_SHOWN: Final = 60
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_TAGS: Final = re.compile(r"(^|[\s,'\"\[])[BI]-\w+")
_PARTS: Final = re.compile(r"[\s,;|\[\]'\"]+")
MOST_CLASSES: Final = 20  # distinct whole numbers that are no label: more are taken for values of a regression
PAIRS: Final = (
    {"premise", "hypothesis"},
    {"sentence1", "sentence2"},
    {"question1", "question2"},
    {"question", "sentence"},
    {"query", "passage"},
    {"text_a", "text_b"},
    {"text1", "text2"},
)


def label_codes(labels: Mapping[int, str]) -> dict[str, int]:
    """Return what a file may write for a label (its number or its name) -> the number.

    Where names are numbers of other classes (stars 1 to 5 that are numbered 0 to 4) a file must write names.
    """
    names = {tidy_label(name): number for number, name in labels.items()}
    numbers = {str(number): number for number in labels}
    if any(names.get(digits, number) != number for digits, number in numbers.items()):
        return names
    return numbers | names


def tidy_label(written: str) -> str:
    """Return a label in NFC without outer blanks."""
    return unicodedata.normalize("NFC", written).strip("\ufeff\u200b" + " \t\r\n\f\v\xa0").strip()


def read_label(written: str, codes: Mapping[str, int]) -> str:
    """Return a label as `codes` have it: also `1.0` for 1, which a missing number elsewhere makes of a column of numbers, and,
    where there are two classes, true for 1 and false for 0. What they do not have comes back tidied."""
    label = tidy_label(written)
    if label in codes:
        return label
    whole = re.fullmatch(r"(\d+)\.0*", label)
    if whole and whole[1] in codes:
        return whole[1]
    if label.lower() in ("true", "false"):
        named = [code for code in codes if code.lower() == label.lower()]
        number = str(int(label.lower() == "true"))
        if named:
            return named[0]
        return number if set(codes.values()) == {0, 1} and number in codes else label
    return label


def read_labels(column: Iterable[str], codes: Mapping[str, int]) -> list[str]:
    """Return every label of a column as `read_label` has it."""
    known: dict[str, str] = {}
    return [known[cell] if cell in known else known.setdefault(cell, read_label(cell, codes)) for cell in column]


def labels_read_otherwise(column: Iterable[str], codes: Mapping[str, int]) -> list[str]:
    """Return a line for each spelling of a label that is read as another one; outer blanks are not worth a line."""
    spellings = Counter(cell.strip() for cell in column)
    by_name = (
        []
        if {str(number) for number in codes.values()} <= codes.keys()
        else ["labels are read as names, not as numbers of classes"]
    )
    return by_name + [
        f"{_rows(count)} with the label {spelling!r}, read as {label!r}"
        for spelling, count in sorted(spellings.items())
        if (label := read_label(spelling, codes)) != spelling and label in codes
    ]


def table_problems(table: Table, columns: Columns, labels: Mapping[int, str]) -> list[str]:
    """Return a sentence for each fault of a table of labelled texts that its columns and cells show."""
    missing = missing_columns(table.names, columns)
    if missing:
        return missing + pairs(table.names, columns, missing=True)
    found = pairs(table.names, columns) + swapped_classes(table, columns, labels)
    if not table.rows:
        return ["the table has a header and no row; add rows"]
    if columns["label"] not in table.faults:
        found += unknown_labels(table.cells, columns, labels)
    return found + [line for name in text_columns(columns) if name not in table.faults for line in empty_texts(table.cells, name)]


def missing_columns(names: Sequence[str], columns: Columns) -> list[str]:
    """Return a sentence for each column that `data.columns` names and the table lacks."""
    return [
        f"no column {name!r}, which data.columns.{role} names{did_you_mean(name, names, 0.5)} "
        f"The file has: {', '.join(names)}. Correct data.columns in params.yaml or the file."
        for role, name in columns.items()
        if name is not None and name not in names
    ]


def text_columns(columns: Columns) -> list[str]:
    """Return the names of the columns that hold the texts of a row: one, or the two of a pair."""
    return [name for role in TEXT if (name := columns.get(role)) is not None]


def pairs(names: Sequence[str], columns: Columns, *, missing: bool = False) -> list[str]:
    """Return a sentence where a table holds pairs of texts of which data.columns names one, or none that is there."""
    if len(text_columns(columns)) == len(TEXT):
        return []
    for pair in PAIRS:
        if pair <= set(names) and (missing or columns["text"] in pair):
            both = " and ".join(sorted(pair))
            return [
                f"columns {both} are pairs of texts, and of one text alone a model would learn something else: name the other "
                "one in data.columns.text_pair, or rename the column that is not to be read."
            ]
    return []


def swapped_classes(table: Table, columns: Columns, labels: Mapping[int, str]) -> list[str]:
    """Return a sentence where the file numbers the classes of `data.labels` in another order."""
    ours = tuple(tidy_label(labels[number]) for number in sorted(labels))
    if sorted(table.classes) != sorted(ours) or table.classes == ours:
        return []
    theirs = ", ".join(f"{number}: {name}" for number, name in enumerate(table.classes))
    return [f"the file says of column {columns['label']!r} that its numbers mean {{{theirs}}}; write data.labels so"]


def unknown_labels(cells: Mapping[str, Any], columns: Columns, labels: Mapping[int, str]) -> list[str]:
    """Return a sentence about labels that `data.labels` does not list, or nothing."""
    column, text, codes = str(columns["label"]), cells[str(columns["text"])], label_codes(labels)
    values = read_labels(cells[column], codes)
    bad = [row for row, value in enumerate(values) if value not in codes]
    if not bad:
        return []
    counts = Counter(values[row] for row in bad)
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
    shown = ", ".join(f"{value!r} x {count}" for value, count in frequent)
    examples = ", ".join(f"row {row + 1} {shorten(text[row])!r}" for row in bad[:EXAMPLES])
    allowed = ", ".join(f"{number} or {name}" if str(number) in codes else name for number, name in sorted(labels.items()))
    return [
        f"column {column!r} has {_rows(len(bad))} with an unknown label ({shown}), "
        f"e.g. {examples}. Allowed: {allowed}. {_advice(counts, codes)}"
    ]


def _advice(counts: Mapping[str, int], codes: Mapping[str, int]) -> str:
    """Return what labels that are not known seem to be, and what to do."""
    here = "this project compresses classifiers of whole texts into named classes"
    words = [label for label in counts if label]
    if not words:
        return "They are empty: fill them in, or delete the rows."
    if any(_TAGS.search(label) for label in words):
        return f"They look like tags of words, as for finding entities; {here}."
    parts = {label: [part for part in _PARTS.split(label) if part] for label in words}
    if any(len(parts[label]) > 1 and set(parts[label]) <= set(codes) for label in words) or any(
        label[0] in "[{" for label in words
    ):
        return f"They look like several labels a text; {here}, one a text."
    numbers = [label for label in words if _NUMBER.fullmatch(label)]
    if len(numbers) == len(words) and (any(float(n) % 1 for n in numbers) or len(numbers) > MOST_CLASSES):
        return f"They look like numbers to be predicted (a regression); {here}."
    alike = {label: code for label in words for code in codes if label.casefold() == code.casefold()}
    if alike:
        pairs_ = ", ".join(f"{label!r} as {code!r}" for label, code in sorted(alike.items()))
        return f"Write {pairs_}: capitals count."
    return "Correct them, or add the class to data.labels."


def empty_texts(cells: Mapping[str, Any], column: str) -> list[str]:
    """Return a sentence about rows without text in a column once cleaned, or nothing."""
    bad = [row for row, text in enumerate(cells[column]) if _is_empty(text)]
    if not bad:
        return []
    numbers = ", ".join(str(row + 1) for row in bad[:EXAMPLES])
    return [
        f"column {column!r} has {_rows(len(bad))} with an empty text (row {numbers}"
        f"{', ...' if len(bad) > EXAMPLES else ''}, counted from 1 without the header). Every row needs words: "
        "fill them in or delete the rows."
    ]


def _is_empty(text: str) -> bool:
    outer = text.strip()
    if not outer or (outer[0] == "<" and not clean_text(outer)):  # only what begins with a tag can be nothing but tags
        return True
    return not outer[0].isprintable() and not any(sign.isprintable() and not sign.isspace() for sign in outer)


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


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
