"""What is checked of the data: frames to look at, checks as plain values, and the words for each that fails.

What is checked of documents: frames to look at, and checks as plain values with the words for each that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from tasks.data.clean import clean_text, cleaned_row_id
from tasks.data.near import near_held
from tasks.data.read import empty_texts, label_codes, missing_columns, shorten, unknown_labels
from tasks.data.splits import SPLITS, repeated_over_splits, task_rows, unknown_splits

_EXAMPLES: Final = 3


@dataclass(frozen=True)
class Expectation:
    """One expectation on one frame: what it is called, GX's name and arguments of it, and what to say if it fails."""

    name: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def file_checks(file: str, table: pd.DataFrame, columns: Mapping[str, str | None]) -> list[Expectation]:
    """Return a check for each column that must be there."""
    return [
        Expectation(
            f"column_{role}", "expect_column_to_exist", {"column": name}, missing_columns(file, table, {role: name})
        )
        for role, name in columns.items()
        if name is not None
    ]


def row_frame(table: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return row (from 1), text (cleaned), label (as written), row_id, characters, conflicting.

    `conflicting` is 1.0 where the text also stands there with another label.
    """
    columns = data["columns"]
    frame = pd.DataFrame({"text": table[columns["text"]].map(clean_text), "label": table[columns["label"]].str.strip()})
    frame.insert(0, "row", range(1, len(frame) + 1))
    frame["row_id"] = frame["text"].map(cleaned_row_id)
    frame["characters"] = frame["text"].str.len()
    meaning = frame["label"].map(label_codes(data["labels"])).fillna(-1)
    frame["conflicting"] = (meaning.groupby(frame["row_id"]).transform("nunique") > 1).astype(float)
    return frame


def row_checks(
    file: str, table: pd.DataFrame, frame: pd.DataFrame, data: Mapping[str, Any], limits: Mapping[str, Any]
) -> list[Expectation]:
    """Return the checks on single rows and on how often texts repeat."""
    longest, copies, clashing = limits["max_characters"], limits["max_duplicate_share"], limits["max_conflicting_share"]
    least_unique = 1.0 - copies - 1e-9
    return [
        Expectation(
            "labels",
            "expect_column_values_to_be_in_set",
            {"column": "label", "value_set": list(label_codes(data["labels"]))},
            unknown_labels(file, table, data),
        ),
        Expectation(
            "empty_texts",
            "expect_column_values_to_be_between",
            {"column": "characters", "min_value": 1},
            empty_texts(file, table, data),
        ),
        Expectation(
            "long_texts",
            "expect_column_values_to_be_between",
            {"column": "characters", "max_value": longest},
            _long_texts(file, frame, longest),
        ),
        Expectation(
            "duplicates",
            "expect_column_proportion_of_unique_values_to_be_between",
            {"column": "row_id", "min_value": least_unique},
            _duplicates(file, frame, copies),
        ),
        Expectation(
            "conflicting_labels",
            "expect_column_mean_to_be_between",
            {"column": "conflicting", "max_value": clashing},
            _conflicting(file, frame, clashing),
        ),
    ]


def class_frame(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return for each class of the task: class, rows, share."""
    counts = task_rows(raw, data)["label"].value_counts()
    rows = [int(counts.get(label, 0)) for label in sorted(data["labels"])]
    names = [data["labels"][label] for label in sorted(data["labels"])]
    return pd.DataFrame({"class": names, "rows": rows, "share": [count / max(1, sum(rows)) for count in rows]})


def class_checks(file: str, classes: pd.DataFrame, limits: Mapping[str, Any]) -> list[Expectation]:
    """Return the checks on the number of rows a class has and on their balance."""
    least, most = limits["min_rows_per_class"], limits["max_class_share"]
    counts = ", ".join(f"{one['class']} {one['rows']}" for one in classes.to_dict("records"))
    few = classes.loc[classes["rows"] < least, "class"].tolist()
    many = classes.loc[classes["share"] > most, "class"].tolist()
    total = int(classes["rows"].sum())
    too_few = (
        f"{file}: {total} rows belong to the task ({counts}); each class needs at least {least} "
        f"(validate_data.min_rows_per_class), and {' and '.join(few)} has fewer. Add rows; see data.task_sources too."
    )
    unbalanced = (
        f"{file}: {' and '.join(many)} is more than {most:.0%} of the {total} rows of the task ({counts}; "
        "validate_data.max_class_share); a model would learn to answer it always. Add rows of the other classes."
    )
    return [
        Expectation(
            "rows_per_class",
            "expect_column_values_to_be_between",
            {"column": "rows", "min_value": least},
            [too_few] if few else [],
        ),
        Expectation(
            "balance",
            "expect_column_values_to_be_between",
            {"column": "share", "max_value": most},
            [unbalanced] if many else [],
        ),
    ]


def split_frame(raw: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """Return row_id, text and split of the task's rows, one line a text and split of the file's own split column."""
    rows = task_rows(raw, data)
    text = rows["text"].map(clean_text)
    frame = pd.DataFrame({"row_id": text.map(cleaned_row_id), "text": text, "split": rows["split"]})
    return frame.drop_duplicates(["row_id", "split"], ignore_index=True)


def split_checks(file: str, raw: pd.DataFrame, data: Mapping[str, Any]) -> list[Expectation]:
    """Return the checks on a split that the file itself gives."""
    repeated = repeated_over_splits(raw, data)
    examples = "; ".join(f"{shorten(one.text)!r} in {one.split}" for one in repeated.head(_EXAMPLES).itertuples())
    words = (
        f"{file}: {len(repeated)} {_texts(len(repeated))} in two splits: {examples}. What a model has trained on "
        "cannot test it: keep each text in one split, or set data.columns.split: null to split by content."
    )
    return [
        Expectation(
            "splits",
            "expect_column_values_to_be_in_set",
            {"column": "split", "value_set": list(SPLITS)},
            [f"{file}: {problem}" for problem in unknown_splits(raw, data)],
        ),
        Expectation(
            "one_split_a_text",
            "expect_column_values_to_be_unique",
            {"column": "row_id"},
            [words] if len(repeated) else [],
        ),
    ]


def set_frame(sets: Mapping[str, pd.DataFrame], threshold: float) -> pd.DataFrame:
    """Return set, row_id, text, held_out (1.0: near-duplicate of the held-out text `near`) and near of each member."""
    parts = [rows.assign(set=name) for name, rows in sorted(sets.items()) if name != "calibration"]  # part of train
    members = pd.concat(parts, ignore_index=True)[["set", "row_id", "text"]]
    seen = members["set"].isin(["train", "transfer"])
    trained, held = members[seen], members[~seen]
    near = near_held(trained["text"].tolist(), held["text"].tolist(), threshold)
    members["held_out"] = 0.0
    members["near"] = ""
    for place, other in near.items():
        members.loc[trained.index[place], ["held_out", "near"]] = [1.0, held["text"].iloc[other]]
    return members


def set_checks(file: str, members: pd.DataFrame, threshold: float) -> list[Expectation]:
    """Return the checks that no set leaks into another."""
    twice = members[members["row_id"].duplicated(keep=False)].sort_values(["row_id", "set"])
    near = members[members["held_out"] > 0].sort_values("row_id")
    shared = f"{file}: {twice['row_id'].nunique()} texts in two sets, e.g. " + "; ".join(
        f"{shorten(one.text)!r} in {one.set}" for one in twice.head(_EXAMPLES).itertuples()
    )
    leaks = (
        f"{file}: {len(near)} {_texts(len(near))} of train or transfer nearly equal to one of validation, test or an "
        f"evaluation set (at least {threshold:g} of their words shared; data.near_duplicate_similarity): "
        + "; ".join(f"{shorten(one.text)!r} ~ {shorten(one.near)!r}" for one in near.head(_EXAMPLES).itertuples())
        + ". Put both into the same split, or set data.columns.split: null to split by content."
    )
    return [
        Expectation(
            "one_set_a_text", "expect_column_values_to_be_unique", {"column": "row_id"}, [shared] if len(twice) else []
        ),
        Expectation(
            "near_duplicates_held_out",
            "expect_column_max_to_be_between",
            {"column": "held_out", "max_value": 0.0},
            [leaks] if len(near) else [],
        ),
    ]


def _long_texts(file: str, frame: pd.DataFrame, longest: int) -> list[str]:
    long = frame[frame["characters"] > longest]
    examples = ", ".join(f"row {one.row} ({one.characters})" for one in long.head(_EXAMPLES).itertuples())
    words = f"{file}: {len(long)} {_texts(len(long))} longer than {longest} characters (validate_data.max_characters): "
    return [words + f"{examples}. Cut them, or raise the limit."] if len(long) else []


def _duplicates(file: str, frame: pd.DataFrame, limit: float) -> list[str]:
    again = int(frame["row_id"].duplicated().sum())
    share = again / max(1, len(frame))
    if share <= limit:
        return []
    most = frame["row_id"].value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    text = frame.loc[frame["row_id"] == most.index[0], "text"].iloc[0]
    return [
        f"{file}: {again} of {len(frame)} rows ({share:.1%}) repeat an earlier text, e.g. {shorten(text)!r} x "
        f"{most.iloc[0]}; at most {limit:.1%} may (validate_data.max_duplicate_share). Delete the copies."
    ]


def _conflicting(file: str, frame: pd.DataFrame, limit: float) -> list[str]:
    clash = frame[frame["conflicting"] > 0].sort_values(["row_id", "row"])
    share = len(clash) / max(1, len(frame))
    if share <= limit:
        return []
    examples = ", ".join(f"row {one.row} {shorten(one.text)!r} ({one.label})" for one in clash.head(2).itertuples())
    return [
        f"{file}: {len(clash)} of {len(frame)} rows ({share:.1%}) have a text that also stands there with another "
        f"label, e.g. {examples}; at most {limit:.1%} may (validate_data.max_conflicting_share). Correct the labels."
    ]


def _texts(count: int) -> str:
    return "text is" if count == 1 else "texts are"


def document_frame(raw: pd.DataFrame) -> pd.DataFrame:
    """Return row (from 1), row_id, text and characters of every document."""
    frame = pd.DataFrame({"row": range(1, len(raw) + 1), "text": raw["text"].to_numpy()})
    frame["row_id"] = [cleaned_row_id(" ".join(text.split())) for text in frame["text"]]
    frame["characters"] = frame["text"].str.len()
    return frame


def document_checks(frame: pd.DataFrame, limits: Mapping[str, Any]) -> list[Expectation]:
    """Return the checks on single documents, on how many there are, and on how often texts repeat."""
    few, longest, copies = limits["min_documents"], limits["max_characters"], limits["max_duplicate_share"]
    again = int(frame["row_id"].duplicated().sum())
    return [
        Expectation(
            "documents",
            "expect_table_row_count_to_be_between",
            {"min_value": few},
            [f"{len(frame)} documents; at least {few} are asked (validate_data.min_documents). Add some."]
            if len(frame) < few
            else [],
        ),
        Expectation(
            "empty_texts",
            "expect_column_values_to_be_between",
            {"column": "characters", "min_value": 1},
            _named(frame[frame["characters"] == 0], "without text", "Fill them in or delete them."),
        ),
        Expectation(
            "long_texts",
            "expect_column_values_to_be_between",
            {"column": "characters", "max_value": longest},
            _named(
                frame[frame["characters"] > longest],
                f"longer than {longest} characters (validate_data.max_characters)",
                "Cut them, or raise the limit.",
            ),
        ),
        Expectation(
            "duplicates",
            "expect_column_proportion_of_unique_values_to_be_between",
            {"column": "row_id", "min_value": 1.0 - copies - 1e-9},
            _repeated(frame, again, copies),
        ),
    ]


def document_set_frame(sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return set, row_id and text of every member of every set."""
    parts = [rows.assign(set=name) for name, rows in sorted(sets.items())]
    return pd.concat(parts, ignore_index=True)[["set", "row_id", "text"]]


def document_set_checks(members: pd.DataFrame) -> list[Expectation]:
    """Return the check that no document stands in two sets."""
    twice = members[members["row_id"].duplicated(keep=False)].sort_values(["row_id", "set"])
    words = f"{twice['row_id'].nunique()} documents in two sets, e.g. " + "; ".join(
        f"{shorten(one.text)!r} in {one.set}" for one in twice.head(2).itertuples()
    )
    return [
        Expectation(
            "one_set_a_document",
            "expect_column_values_to_be_unique",
            {"column": "row_id"},
            [words] if len(twice) else [],
        )
    ]


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
