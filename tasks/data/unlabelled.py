"""Texts without labels, of other sources than the rows: a column of a table, documents, words with tags, or a pattern."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.data.clean import clean_text, row_id, sentences
from tasks.data.documents import decoded
from tasks.data.faults import missing_columns
from tasks.data.sources import data_file, is_text_folder, kind_of, unlabelled_files
from tasks.data.tables import read_table
from tasks.errors import DataError, SourceError

# `wanted` is the entry of a source in params.yaml as plain values: `tasks.params.unlabelled.Texts`.
Values = Mapping[str, Any]
HOW: Final = "column: NAME for a table, pattern: REGULAR EXPRESSION, or words: true"
NO_TEXT: Final = "no text was found there as it is to be read: docs/robust.md tells how"
BEFORE_END: Final = re.compile(r"\s+(?=(?:n't|'(?:s|m|re|ve|d|ll)|[.,!?;:\u2026]+)(?:\s|$))")


def read_texts(place: Path, wanted: Values, key: str) -> dict[str, str]:
    """Return row_id -> cleaned text of a source, each text once, in the order of their ids.

    With `sentences` texts are cut into sentences, and those of so many words are returned. Raises DataError, which names `key`,
    where the source cannot be read so, or has no text.
    """
    found: dict[str, str] = {}
    for text in _texts(place, wanted, key):
        row = row_id(text)
        found[row] = min(found.get(row, text), text)
    if not found:
        raise DataError(f"{key}: {NO_TEXT}")
    return {row: found[row] for row in sorted(found)}


def text_faults(place: Path, wanted: Values, key: str) -> list[str]:
    """Return a sentence for each fault of a source of texts at `place`, the file or folder that `key` names.

    It is read up to its first text.
    """
    try:
        return [] if next(_texts(place, wanted, key), None) else [f"{key}: {place}: {NO_TEXT}"]
    except (DataError, SourceError) as error:
        return str(error).splitlines()
    except OSError as error:
        return [f"{key}: {place} cannot be read: {error.strerror or error}; see its permissions"]


def _texts(place: Path, wanted: Values, key: str) -> Iterator[str]:
    limits = wanted["sentences"]
    for raw in _raw(place, wanted, key):
        text = clean_text(raw)
        if limits is None:
            yield from [text] if text else []
            continue
        yield from (part for part in sentences(text) if limits["min_words"] <= len(part.split()) <= limits["max_words"])


def _raw(place: Path, wanted: Values, key: str) -> Iterator[str]:
    if wanted["column"] is not None:
        yield from _column(place, wanted["column"], key)
        return
    if wanted["pattern"] is None and not wanted["words"] and not (place.is_dir() and is_text_folder(place)):
        raise DataError(f"{key}: {place.name} is no folder of .txt files; say how texts stand in it: {HOW}")
    for file in unlabelled_files(place).values():
        if wanted["words"] and kind_of(file):
            raise DataError(f"{key}: {file.name} is a table; give column: NAME in place of words")
        raw = file.read_bytes()
        text = decoded(file.name, gzip.decompress(raw) if file.suffix == ".gz" else raw)
        if wanted["pattern"] is not None:
            yield from (match[1] or "" for match in re.finditer(wanted["pattern"], text, re.MULTILINE))
        elif wanted["words"]:
            yield from _of_words(text)
        else:
            yield text


def _column(place: Path, column: str, key: str) -> list[str]:
    file = data_file(place, key)
    table = read_table(file, {"text": column})
    if problems := missing_columns(table.names, {"text": column}):
        raise DataError("\n".join(f"{key}: {file.name}: {problem}" for problem in problems))
    return list(table.cells[column])


def _of_words(text: str) -> Iterator[str]:
    """Yield the texts of a file with a word a line, tags behind it, and a blank line between texts (CoNLL)."""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        words = [line.split()[0] for line in block.splitlines() if line.strip() and not line.startswith("-DOCSTART-")]
        yield BEFORE_END.sub("", " ".join(words))
