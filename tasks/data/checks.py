"""What a check of the data is: an expectation on a frame as plain values, and the words for it where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tasks.data.faults import shorten, texts_are
from tasks.data.pairs import joined_texts, shown
from tasks.data.read import examples
from tasks.data.tables import EXAMPLES


@dataclass(frozen=True)
class Expectation:
    """One expectation on one frame: what it is called, GX's name and arguments of it, and what to say of the file if it fails."""

    name: str
    expectation: str
    arguments: dict[str, Any]
    problems: list[str]


Suites = Mapping[str, tuple[pd.DataFrame, list[Expectation]]]  # by name: what is looked at, and the checks on it


@dataclass(frozen=True)
class Checked:
    """What is checked of fetched data: its name and digest, the suites, the sets it gives, and what is wrong with those."""

    file: str
    sha256: str
    suites: Suites
    sets: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    problems: Sequence[str] = ()


def fails(suites: Suites) -> bool:
    """Return whether a check of these suites has something to say."""
    return any(check.problems for _, checks in suites.values() for check in checks)


def values_between(name: str, column: str, problems: list[str], **limits: float) -> Expectation:
    """Return the check that each value of a column is at least `min_value` and at most `max_value`."""
    return Expectation(name, "expect_column_values_to_be_between", {"column": column, **limits}, problems)


def short_texts(rows: pd.DataFrame, longest: int, thing: str) -> Expectation:
    """Return the check that no text has more characters than `longest`; `rows` has `row` and `characters`."""
    long = rows[rows["characters"] > longest]
    shown = ", ".join(f"{thing} {row.row} ({row.characters})" for row in long.head(EXAMPLES).itertuples())
    words = (
        f"{texts_are(len(long))} longer than {longest} characters "
        f"(validate_data.max_characters): {shown}. Cut them, or raise the limit."
    )
    return values_between("long_texts", "characters", [words] if len(long) else [], max_value=longest)


def few_copies(rows: pd.DataFrame, most: float, thing: str) -> Expectation:
    """Return the check that at most this share of the rows repeats an earlier text."""
    again, problems = int(rows["row_id"].duplicated().sum()), []
    share = again / max(1, len(rows))
    if share > most:
        times = rows["row_id"].value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
        text = rows.loc[rows["row_id"] == times.index[0], "text"].iloc[0]
        problems = [
            f"{again} of {len(rows)} {thing}s ({share:.1%}) repeat an earlier text, e.g. {shorten(shown(text))!r} x "
            f"{times.iloc[0]}; at most {most:.1%} may (validate_data.max_duplicate_share). Delete the copies."
        ]
    limit = {"column": "row_id", "min_value": 1.0 - most - 1e-9}
    return Expectation("duplicates", "expect_column_proportion_of_unique_values_to_be_between", limit, problems)


def unique_texts(name: str, problems: list[str], column: str = "row_id") -> Expectation:
    """Return the check that no text, or nothing else that a column names, stands in a frame twice."""
    return Expectation(name, "expect_column_values_to_be_unique", {"column": column}, problems)


def one_set_each(thing: str, members: pd.DataFrame) -> Expectation:
    """Return the check that no text, or document, stands in two sets."""
    twice = members[members["row_id"].duplicated(keep=False)].sort_values(["row_id", "set"])
    words = f"{twice['row_id'].nunique()} {thing}s in two sets, e.g. {examples(twice, 'set')}"
    return unique_texts(f"one_set_a_{thing}", [words] if len(twice) else [])


def members_of(sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return set, row_id and text of every member of every set, a pair as one text."""
    parts = [rows.assign(set=name, text=joined_texts(rows)) for name, rows in sorted(sets.items())]
    return pd.concat(parts, ignore_index=True)[["set", "row_id", "text"]]


def described(sets: Mapping[str, pd.DataFrame], labels: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """Return for each set how many rows it has, also of each class that stands in it, and their sources."""
    facts: dict[str, dict[str, Any]] = {}
    for name, rows in sets.items():
        counts = {words: int((rows["label"] == label).sum()) for label, words in sorted(labels.items())}
        classes = {words: count for words, count in counts.items() if count}
        facts[name] = {"rows": len(rows), "classes": classes, "sources": sorted(rows["source"].unique().tolist())}
    return facts
