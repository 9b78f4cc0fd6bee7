"""The schema of texts without labels: what a student is compared with its teacher on, and broad text that it learns from."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.artifacts import STRESS, changed_name
from tasks.data.surface import CHANGES
from tasks.params.parts import Name, PartOf, Positive, Section, Source, did_you_mean


def _is_pattern(text: str) -> str:
    """Return a regular expression; ValueError unless it is one with exactly one group, which is the text."""
    try:
        groups = re.compile(text, re.MULTILINE).groups
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{text!r} has {groups} groups; put the one part that is the text into round brackets")
    return text


def _is_kind(kind: str) -> str:
    if kind not in CHANGES:
        raise ValueError(f"{kind!r} is not one of {', '.join(CHANGES)}{did_you_mean(kind, CHANGES)}")
    return kind


Kinds = Annotated[list[Annotated[str, AfterValidator(_is_kind)]], Field(min_length=1)]


class Sentences(Section):
    """Limits of the sentences that texts are cut into."""

    min_words: Positive
    max_words: Positive


class Texts(Section):
    """A source of texts and how they stand in it. Only the keys that are needed are given.

    `column` is of a table; of other files the texts are what the one group of `pattern` finds, line by line, or with `words`
    the words that stand one a line before their tags, texts apart by blank lines. Without these it is a folder of .txt files.
    """

    source: Source
    rows: Positive
    column: str | None = None
    pattern: Annotated[str, AfterValidator(_is_pattern)] | None = None
    words: bool = False
    sentences: Sentences | None = None

    @model_validator(mode="after")
    def _is_read_one_way(self) -> Self:
        given = [name for name in ("column", "pattern", "words") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a source is read in one way; give one of them")
        return self


class StressSet(Texts):
    """Texts of another subject or style than the task's, and in one plain line what they are."""

    about: Annotated[str, Field(min_length=1, max_length=200)]


class Changed(Section):
    """Copies of the first `rows` rows of a set by hash, one for each kind of change: the set `changed_<of>`."""

    of: Name
    rows: Positive
    kinds: Kinds


class Stress(Section):
    """What a student is compared with its teacher on, without labels: measured, never learnt from."""

    sets: dict[Name, StressSet]
    changed: Changed | None

    @property
    def set_names(self) -> list[str]:
        """Return the names of the sets: `stress_NAME`, then `changed_SET`."""
        return [*(STRESS + name for name in self.sets), *([changed_name(self.changed.of)] if self.changed else [])]


class Surface(Section):
    """The share of transfer rows that are dressed, and the kinds of change in which they are."""

    share: PartOf
    kinds: Kinds
