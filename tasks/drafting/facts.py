"""What a draft follows from: numbers about the rows and the teacher, so that every value can say why it is as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tasks.data.clean import clean_text, hash_order
from tasks.data.tokens import encoded, load_tokenizer
from tasks.drafting.table import Prepared
from tasks.models.architectures import adapter_of
from tasks.models.head import class_names, rows_by_name
from tasks.models.tokenizer_files import read_tokenizer
from tasks.models.weight_files import read_object

SAMPLE: Final = 4000  # texts whose tokens are counted


@dataclass(frozen=True)
class TeacherFacts:
    """A teacher's source and config, the tokens it can read (None: any number), whether it answers these classes already.

    `is_wordpiece`: its tokenizer keeps its pieces in the order of their frequency.
    """

    source: str
    config: Mapping[str, Any]
    positions: int | None
    answers: bool
    is_wordpiece: bool
    millions: float

    @property
    def hidden(self) -> int:
        """Channels of its hidden states."""
        return int(adapter_of(self.config).shape(self.config)["hidden"])


@dataclass(frozen=True)
class RowFacts:
    """Rows by class and set; shares of rows whose text stands there again, or with another label; lengths.

    `tokens` are the 50th, 95th and 99th percentile of the tokens of a text, `words` the 5th and 95th of its words,
    `pieces_per_word` the teacher's tokens for a word in the mean, `characters` the longest text.
    """

    rows: dict[str, int]
    sets: dict[str, dict[str, int]]
    repeated_share: float
    conflicting_share: float
    tokens: tuple[int, int, int]
    words: tuple[int, int]
    pieces_per_word: float
    characters: int

    @property
    def total(self) -> int:
        """All rows."""
        return sum(self.rows.values())

    def of_set(self, name: str) -> int:
        """Return the rows of a set."""
        return sum(self.sets[name].values())

    def least(self, name: str) -> int:
        """Return the rows that the rarest class has in a set."""
        return min(self.sets[name].values())


def teacher_facts(folder: Path, source: str, classes: Sequence[str]) -> TeacherFacts:
    """Return what a draft needs of a model folder; SourceError where config.json cannot be read or is of no known family."""
    config = read_object(folder / "config.json")
    family = adapter_of(config)
    names = class_names(config)
    answers = names is not None and rows_by_name(names, dict(enumerate(classes))) is not None
    total = family.count_parameters(config, family.shape(config), max(2, len(classes)))["total"]
    tokenizer, _ = read_tokenizer(folder)
    is_wordpiece = tokenizer["model"].get("type") == "WordPiece"
    return TeacherFacts(source, config, family.positions(config), answers, is_wordpiece, total / 1e6)


def row_facts(prepared: Prepared, tokenizer_file: Path) -> RowFacts:
    """Return what a draft needs of the rows; tokens are counted of a sample that does not depend on the order of rows."""
    cleaned = [clean_text(text) for text in prepared.texts]
    labels_of: dict[str, set[str]] = {}
    for text, label in zip(cleaned, prepared.labels, strict=True):
        labels_of.setdefault(text.lower(), set()).add(label)
    conflicting = sum(len(labels_of[text.lower()]) > 1 for text in cleaned)
    sample = sorted(set(cleaned), key=lambda text: hash_order(text, "draft"))[:SAMPLE]
    tokenizer = load_tokenizer(tokenizer_file)
    tokens = np.array([len(ids) for ids in encoded(tokenizer, sample, special=True)])
    words = np.array([len(text.split()) for text in sample])
    p50, p95, p99 = (int(value) for value in np.percentile(tokens, (50, 95, 99)))
    low, high = (int(value) for value in np.percentile(words, (5, 95)))
    return RowFacts(
        rows=dict(prepared.rows()),
        sets={name: {c: prepared.rows_in(name)[c] for c in prepared.classes} for name in ("train", "validation", "test")},
        repeated_share=1 - len(labels_of) / len(cleaned),
        conflicting_share=conflicting / len(cleaned),
        tokens=(p50, p95, p99),
        words=(max(1, low), max(2, high)),
        pieces_per_word=float(tokens.sum() / max(1, words.sum())),
        characters=max(map(len, cleaned)),
    )
