"""What is checked of documents: frames to look at, and checks as plain values with the words for each that fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.data.checks import Check
from tasks.data.clean import cleaned_row_id
from tasks.data.read import shorten


def document_frame(raw: pd.DataFrame) -> pd.DataFrame:
    """Return row (from 1), row_id, text and characters of every document."""
    frame = pd.DataFrame({"row": range(1, len(raw) + 1), "text": raw["text"].to_numpy()})
    frame["row_id"] = [cleaned_row_id(" ".join(text.split())) for text in frame["text"]]
    frame["characters"] = frame["text"].str.len()
    return frame


def document_checks(frame: pd.DataFrame, limits: Mapping[str, Any]) -> list[Check]:
    """Return the checks on single documents, on how many there are, and on how often texts repeat."""
    few, longest, copies = limits["min_documents"], limits["max_characters"], limits["max_duplicate_share"]
    again = int(frame["row_id"].duplicated().sum())
    return [
        Check("documents", "expect_table_row_count_to_be_between", {"min_value": few},
              [f"{len(frame)} documents; at least {few} are asked (validate_data.min_documents). Add some."]
              if len(frame) < few else []),
        Check("empty_texts", "expect_column_values_to_be_between", {"column": "characters", "min_value": 1},
              _named(frame[frame["characters"] == 0], "without text", "Fill them in or delete them.")),
        Check("long_texts", "expect_column_values_to_be_between", {"column": "characters", "max_value": longest},
              _named(frame[frame["characters"] > longest],
                     f"longer than {longest} characters (validate_data.max_characters)", "Cut them, or raise the limit.")),
        Check("duplicates", "expect_column_proportion_of_unique_values_to_be_between",
              {"column": "row_id", "min_value": 1.0 - copies - 1e-9}, _repeated(frame, again, copies)),
    ]  # fmt: skip


def set_frame(sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return set, row_id and text of every member of every set."""
    parts = [rows.assign(set=name) for name, rows in sorted(sets.items())]
    return pd.concat(parts, ignore_index=True)[["set", "row_id", "text"]]


def set_checks(members: pd.DataFrame) -> list[Check]:
    """Return the check that no document stands in two sets."""
    twice = members[members["row_id"].duplicated(keep=False)].sort_values(["row_id", "set"])
    words = f"{twice['row_id'].nunique()} documents in two sets, e.g. " + "; ".join(
        f"{shorten(one.text)!r} in {one.set}" for one in twice.head(2).itertuples()
    )
    return [Check("one_set_a_document", "expect_column_values_to_be_unique", {"column": "row_id"},
                  [words] if len(twice) else [])]  # fmt: skip


def _named(bad: pd.DataFrame, what: str, advice: str) -> list[str]:
    numbers = ", ".join(str(row) for row in bad["row"].head(3))
    return [f"{len(bad)} documents {what}, e.g. number {numbers}. {advice}"] if len(bad) else []


def _repeated(frame: pd.DataFrame, again: int, limit: float) -> list[str]:
    share = again / max(1, len(frame))
    if share <= limit:
        return []
    text = frame.loc[frame["row_id"].duplicated(), "text"].iloc[0]
    return [
        f"{again} of {len(frame)} documents ({share:.1%}) repeat an earlier one, e.g. {shorten(text)!r}; at most "
        f"{limit:.1%} may (validate_data.max_duplicate_share). Delete the copies."
    ]
