"""Which column of a table holds the texts, the labels and the sets; and which other task a table looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from tasks.data.faults import PAIRS, did_you_mean, tidy_label
from tasks.drafting.raw import SPLITS, Raw, is_number
from tasks.errors import DataError

TEXT_NAMES: Final = (
    "text",
    "sentence",
    "content",
    "review",
    "body",
    "message",
    "comment",
    "tweet",
    "question",
    "utterance",
    "document",
)
LABEL_NAMES: Final = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "topic",
    "intent",
    "polarity",
    "stars",
    "rating",
    "y",
)
MOST_CLASSES: Final = 300
OTHER_LABEL: Final = "--column label=NAME takes a column"
NOT_THIS: Final = "this project compresses classifiers of whole texts into named classes"


@dataclass(frozen=True)
class Column:
    """What a column is like: words a cell in the mean, different values, and the share of cells that hold something."""

    name: str
    words: float
    characters: float
    distinct: int
    filled: float
    numeric: bool

    @property
    def is_prose(self) -> bool:
        """Whether it may hold texts: several words a cell, or as many characters, and few cells alike."""
        return not self.numeric and self.distinct > 1 and (self.words >= 2 or self.characters >= 12)


@dataclass(frozen=True)
class Roles:
    """The columns by their use, `split` where the file has one, other columns that could have been meant, and notes."""

    text: str
    label: str
    split: str | None
    other_texts: tuple[str, ...]
    other_labels: tuple[str, ...]


def columns_of(raw: Raw) -> dict[str, Column]:
    """Return name -> what the column is like."""
    return {name: _column(name, cells) for name, cells in raw.columns.items()}


def _column(name: str, cells: Sequence[str]) -> Column:
    filled = [cell for cell in cells if cell.strip()]
    return Column(
        name,
        words=fmean(len(cell.split()) for cell in filled) if filled else 0.0,
        characters=fmean(map(len, filled)) if filled else 0.0,
        distinct=len(set(filled)),
        filled=len(filled) / max(1, len(cells)),
        numeric=bool(filled) and all(map(is_number, filled)),
    )


def text_columns(raw: Raw) -> list[str]:
    """Return the columns of a table without labels that may hold its texts, the likeliest first; DataError for pairs of texts."""
    columns = columns_of(raw)
    _refuse_pairs(columns)
    prose = [name for name, column in columns.items() if column.is_prose]
    return _texts(columns, {_split_column(raw)}) or (prose if len(prose) == 1 else [])


def find_roles(raw: Raw, text: str | None = None, label: str | None = None) -> Roles:
    """Return which column is what; `text` and `label` are a person's answers. DataError for a table of another task."""
    columns = columns_of(raw)
    for option, given in (("text", text), ("label", label)):
        if given is not None and given not in columns:
            why = raw.unusable.get(given)
            hint = did_you_mean(given, list(columns)) if why is None else ""
            raise DataError(
                f"--column {option}={given}: " + (why or f"there is no such column{hint} Columns: {', '.join(columns)}")
            )
    if text is None:
        _refuse_pairs(columns)
    split = _split_column(raw)
    texts = [text] if text else _texts(columns, {split, label})
    if not texts:
        raise DataError(f"no column holds texts (columns: {_listed(columns)}); name one with --column text=NAME{_unusable(raw)}")
    labels = [label] if label else _labels(raw, columns, {split, texts[0]})
    if not labels:
        raise DataError(_no_label(raw, columns, texts[0]))
    return Roles(texts[0], labels[0], split, tuple(texts[1:]), tuple(labels[1:]))


def _texts(columns: Mapping[str, Column], taken: set[str | None]) -> list[str]:
    """Return the columns that may hold texts: those called so first, then the longest."""
    prose = [column for column in columns.values() if column.is_prose and column.name not in taken]
    prose = [c for c in prose if c.distinct > MOST_CLASSES or c.words >= 3 or c.name.casefold() in TEXT_NAMES]
    return [c.name for c in sorted(prose, key=lambda c: (_rank(c.name, TEXT_NAMES), -c.characters))]


def _labels(raw: Raw, columns: Mapping[str, Column], taken: set[str | None]) -> list[str]:
    """Return the columns that may hold labels: those called so first, then those with the fewest classes."""
    most = min(MOST_CLASSES, max(2, raw.rows // 5))
    found = [c for c in columns.values() if c.name not in taken and 2 <= c.distinct <= most and c.filled > 0.5]
    found = [c for c in found if not _is_measure(raw.columns[c.name], c)]
    return [c.name for c in sorted(found, key=lambda c: (_rank(c.name, LABEL_NAMES), c.words > 3, c.distinct))]


def _rank(name: str, known: Sequence[str]) -> int:
    lower = name.casefold()
    if lower in known:
        return known.index(lower)
    return len(known) + (0 if any(word in lower for word in known if len(word) > 3) else 1)


def _split_column(raw: Raw) -> str | None:
    for name, cells in raw.columns.items():
        values = {cell.strip().casefold() for cell in cells}
        if 2 <= len(values) <= 4 and values <= SPLITS.keys():
            return name
    return None


def _is_measure(cells: Sequence[str], column: Column) -> bool:
    """Return whether numbers are measured and not counted classes: fractions among them, or very many."""
    if not column.numeric:
        return False
    return column.distinct > 30 or any(float(cell) % 1 for cell in set(cells) if cell.strip())


def _refuse_pairs(columns: Mapping[str, Column]) -> None:
    for pair in PAIRS:
        if pair <= set(columns):
            both = " and ".join(sorted(pair))
            raise DataError(
                f"columns {both}: this looks like pairs of texts, and init drafts single ones; start from params/snli.yaml, "
                "which names the second text in data.columns.text_pair, or take one of them alone with --column text=NAME"
            )


def _no_label(raw: Raw, columns: Mapping[str, Column], text: str) -> str:
    others = {name: column for name, column in columns.items() if name != text}
    measures = [name for name, column in others.items() if _is_measure(raw.columns[name], column) and column.filled > 0.5]
    if measures and raw.rows > 1:
        return f"column {measures[0]!r}: this looks like numbers to be predicted (a regression); {NOT_THIS}. {OTHER_LABEL}"
    if raw.unusable:
        return f"no column holds labels (columns: {_listed(columns)}){_unusable(raw)}; {NOT_THIS}. {OTHER_LABEL}"
    return f"no column holds labels: of {_listed(columns)} none has a few values that repeat. {OTHER_LABEL}"


def _listed(columns: Mapping[str, Column]) -> str:
    return ", ".join(f"{name} ({column.distinct:,} different values)" for name, column in columns.items()) or "none"


def _unusable(raw: Raw) -> str:
    return "".join(f"; {name}: {why}" for name, why in raw.unusable.items())


def classes_of(cells: Sequence[str]) -> tuple[dict[str, str], Counter[str]]:
    """Return how each label is written -> its one name, and how many rows each name has, in the order of numbers or letters.

    Spellings that differ in capitals or outer blanks alone are one class, called as most rows write it; `1.0` is 1 where all
    are numbers. Empty cells are no class.
    """
    written = Counter(cell for cell in cells if tidy_label(cell))
    whole = all(is_number(cell) and float(cell) % 1 == 0 for cell in written)
    groups: dict[str, Counter[str]] = {}
    for cell, count in written.items():
        name = str(int(float(cell))) if whole else " ".join(tidy_label(cell).split())
        groups.setdefault(name.casefold(), Counter())[name] += count
    best = {key: counted.most_common(1)[0][0] for key, counted in groups.items()}
    order = sorted(best.values(), key=(lambda name: (float(name), name)) if whole else (lambda name: (0.0, name.casefold())))
    names = {cell: best[(str(int(float(cell))) if whole else " ".join(tidy_label(cell).split())).casefold()] for cell in written}
    rows = Counter(dict.fromkeys(order, 0))
    for cell, count in written.items():
        rows[names[cell]] += count
    return names, rows
