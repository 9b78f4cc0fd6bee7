"""Rows of a classifier: the sets that they are cut into, what is checked of them before, and their tokens after."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data import checks, faults, read
from tasks.data.checks import Checked, Expectation
from tasks.data.clean import markup_in
from tasks.data.faults import shorten, texts_are
from tasks.data.frames import cleaned_rows, rows_sha256
from tasks.data.near import near_held
from tasks.data.pairs import GROUP, SECOND, holds_pairs, joined_texts, shown, texts_of
from tasks.data.sources import rows_file, texts_wanted
from tasks.data.splits import (
    SPLITS,
    Unlabelled,
    groups_over_splits,
    make_sets,
    repeated_over_splits,
    split_texts,
    task_rows,
    unknown_splits,
)
from tasks.data.stress import with_changed_set
from tasks.data.tables import EXAMPLES, Table, read_table
from tasks.data.tokens import save_tokens, tokenize
from tasks.data.typos import with_typo_set
from tasks.data.unlabelled import read_texts
from tasks.errors import DataError
from tasks.files import file_sha256
from tasks.progress import say

# `data` and `limits` are the sections data and validate_data of params.yaml as plain values.
Values = Mapping[str, Any]


def sets_of(fetched: Path, data: Values) -> dict[str, pd.DataFrame]:
    """Return the sets of rows that follow from the fetched file."""
    sets = make_sets(read.read_rows(rows_file(fetched), data), data, unlabelled_of(fetched, data))
    return with_changed_set(with_typo_set(sets, data), data["stress"])


def unlabelled_of(fetched: Path, data: Values) -> Unlabelled:
    """Return the fetched texts of other sources; DataError where one cannot be read as params.yaml says."""
    found: dict[str, dict[str, dict[str, str]]] = {"stress": {}, "broad": {}}
    for folder, (key, entry) in texts_wanted(data).items():
        kind, _, name = folder.partition("/")
        found[kind][name] = read_texts(fetched / folder, entry, f"params.yaml: {key}")
    return Unlabelled(**found)


def save_set_tokens(
    sets: Mapping[str, pd.DataFrame], tokenizer_file: Path, max_tokens: int, out: Path
) -> dict[str, dict[str, Any]]:
    """Write the tokens of every set, and return what there is of each."""
    facts: dict[str, dict[str, Any]] = {}
    for name, frame in sets.items():
        tokens = tokenize(texts_of(frame), tokenizer_file, max_tokens)
        save_tokens(tokens, out / name)
        labels = frame["label"].value_counts().sort_index()
        facts[name] = {
            "rows": len(frame),
            "rows_sha256": rows_sha256(frame["row_id"]),
            "tokens": int(tokens.offsets[-1]),
            "labels": {str(label): int(count) for label, count in labels.items()},
            **({"groups": int(frame[GROUP].nunique())} if holds_pairs(frame) else {}),
        }
    return facts


def checked(fetched: Path, data: Values, limits: Values) -> Checked:
    """Return what is checked of the fetched file; later suites need the earlier ones to hold."""
    file = rows_file(fetched)
    table = read_table(file, data["columns"])
    suites: dict[str, tuple[pd.DataFrame, list[Expectation]]] = {}
    so_far = partial(Checked, file.name, file_sha256(file), suites)
    suites["1-file"] = (read.frame_of(table), _file_checks(table, data["columns"]))
    if checks.fails(suites):
        return so_far()
    other = faults.pairs(table.names, data["columns"]) + faults.swapped_classes(table, data["columns"], data["labels"])
    if other or not table.rows:
        return so_far(problems=other or faults.table_problems(table, data["columns"], data["labels"]))
    rows = _row_frame(table, data)
    suites["2-rows"] = (rows, _row_checks(table, rows, data, limits))
    if any(check.problems for check in suites["2-rows"][1] if check.name in ("labels", "empty_texts")):
        return so_far()
    _say_what_is_changed(table, file.name, data)
    raw = read.to_rows(table, data)
    classes = _class_frame(raw, data)
    suites["3-classes"] = (classes, _class_checks(classes, limits))
    if data["columns"]["split"]:
        suites["4-splits"] = (split_texts(raw, data), _split_checks(raw, data))
    if checks.fails(suites):
        return so_far()
    try:
        sets = make_sets(raw, data, unlabelled_of(fetched, data))
    except DataError as error:
        return so_far(problems=[str(error)])
    members = _member_frame(sets, data["near_duplicate_similarity"])
    suites["5-sets"] = (members, _set_checks(members, data["near_duplicate_similarity"]))
    if holds_pairs(sets["train"]):
        groups = _group_frame(sets)
        suites["6-groups"] = (groups, [checks.unique_texts("one_side_a_group", _divided(groups), GROUP)])
        _say_what_is_shared(sets, file.name)
    return so_far(sets=checks.described(sets, data["labels"]))


def _say_what_is_changed(table: Table, name: str, data: Values) -> None:
    """Say which labels are read as others, and what is cut out of texts."""
    columns = data["columns"]
    for line in faults.labels_read_otherwise(table.cells[columns["label"]], faults.label_codes(data["labels"])):
        say(f"{name}: {line}")
    marks = markup_in(cell for name in faults.text_columns(columns) for cell in table.cells[name])
    if marks:
        kinds = ", ".join(f"{kind} x {count:,}" for kind, count in marks.most_common(5))
        say(f"{name}: markup is cut out of the texts, {marks.total():,} times ({kinds}); other words in angle brackets stay")


def _file_checks(table: Table, columns: Mapping[str, str | None]) -> list[Expectation]:
    """Return a check for each column that must be there."""
    return [
        Expectation(f"column_{role}", "expect_column_to_exist", {"column": name}, _missing(table, role, columns))
        for role, name in columns.items()
        if name is not None
    ]


def _missing(table: Table, role: str, columns: Mapping[str, str | None]) -> list[str]:
    missing = faults.missing_columns(table.names, {role: columns[role]})
    return missing + (faults.pairs(table.names, columns, missing=True) if missing and role == "text" else [])


def _row_frame(table: Table, data: Values) -> pd.DataFrame:
    """Return row (from 1), text (cleaned), label (as `data.labels` has it), row_id, characters, conflicting.

    `conflicting` is 1.0 where the text also stands there with another label. A pair is one text, and has the characters of the
    longer one.
    """
    codes, cells = faults.label_codes(data["labels"]), table.cells
    label = pd.Series(faults.read_labels(cells[data["columns"]["label"]], codes), dtype=str)
    text = pd.Series(cells[data["columns"]["text"]], dtype=str)
    frame = pd.DataFrame({"row": range(1, table.rows + 1), "text": text, "label": label})
    if data["columns"].get(SECOND) is not None:
        frame[SECOND] = pd.Series(cells[data["columns"][SECOND]], dtype=str)
        frame[GROUP] = ""
    frame = cleaned_rows(frame)
    lengths = [frame[column].str.len() for column in ("text", SECOND) if column in frame]
    frame["characters"] = pd.concat(lengths, axis=1).max(axis=1)
    frame["text"] = joined_texts(frame)
    meaning = frame["label"].map(codes).fillna(-1)
    frame["conflicting"] = (meaning.groupby(frame["row_id"]).transform("nunique") > 1).astype(float)
    return frame


def _row_checks(table: Table, rows: pd.DataFrame, data: Values, limits: Values) -> list[Expectation]:
    """Return the checks on single rows and on how often texts repeat."""
    columns, labels = data["columns"], data["labels"]
    allowed = {"column": "label", "value_set": list(faults.label_codes(labels))}
    most = limits["max_conflicting_share"]
    clashing = {"column": "conflicting", "max_value": most}
    empty = [line for name in faults.text_columns(columns) for line in faults.empty_texts(table.cells, name)]
    return [
        Expectation("labels", "expect_column_values_to_be_in_set", allowed, faults.unknown_labels(table.cells, columns, labels)),
        checks.values_between("empty_texts", "characters", empty, min_value=1),
        checks.short_texts(rows, limits["max_characters"], "row"),
        checks.few_copies(rows, limits["max_duplicate_share"], "row"),
        Expectation("conflicting_labels", "expect_column_mean_to_be_between", clashing, _conflicting(rows, most)),
    ]


def _conflicting(rows: pd.DataFrame, limit: float) -> list[str]:
    clash = rows[rows["conflicting"] > 0].sort_values(["row_id", "row"])
    share = len(clash) / max(1, len(rows))
    if share <= limit:
        return []
    listed = ", ".join(f"row {row.row} {shorten(shown(str(row.text)))!r} ({row.label})" for row in clash.head(2).itertuples())
    return [
        f"{len(clash)} of {len(rows)} rows ({share:.1%}) have a text that also stands there with another "
        f"label, e.g. {listed}; at most {limit:.1%} may (validate_data.max_conflicting_share). Correct the labels."
    ]


def _class_frame(raw: pd.DataFrame, data: Values) -> pd.DataFrame:
    """Return for each class of the task: class, rows, share."""
    labels = task_rows(raw, data)["label"]
    counts = {words: int((labels == label).sum()) for label, words in sorted(data["labels"].items())}
    shares = [count / max(1, len(labels)) for count in counts.values()]
    return pd.DataFrame({"class": list(counts), "rows": list(counts.values()), "share": shares})


def _class_checks(classes: pd.DataFrame, limits: Values) -> list[Expectation]:
    """Return the checks on the number of rows a class has and on their balance."""
    least, most = limits["min_rows_per_class"], limits["max_class_share"]
    counts = ", ".join(f"{name} {rows}" for name, rows in zip(classes["class"], classes["rows"], strict=True))
    few = classes.loc[classes["rows"] < least, "class"].tolist()
    many = classes.loc[classes["share"] > most, "class"].tolist()
    total = int(classes["rows"].sum())
    too_few = (
        f"{total} rows belong to the task ({counts}); each class needs at least {least} "
        f"(validate_data.min_rows_per_class), and {' and '.join(few)} has fewer. Add rows; see data.task_sources too."
    )
    unbalanced = (
        f"{' and '.join(many)} is more than {most:.0%} of the {total} rows of the task ({counts}; "
        "validate_data.max_class_share); a model would learn to answer it always. Add rows of the other classes."
    )
    return [
        checks.values_between("rows_per_class", "rows", [too_few] if few else [], min_value=least),
        checks.values_between("balance", "share", [unbalanced] if many else [], max_value=most),
    ]


def _split_checks(raw: pd.DataFrame, data: Values) -> list[Expectation]:
    """Return the checks on a split that the file itself gives."""
    allowed = {"column": "split", "value_set": list(SPLITS)}
    return [
        Expectation("splits", "expect_column_values_to_be_in_set", allowed, unknown_splits(raw, data)),
        checks.unique_texts("one_split_a_text", repeated_over_splits(raw, data) or groups_over_splits(raw, data)),
    ]


def _member_frame(sets: Mapping[str, pd.DataFrame], threshold: float) -> pd.DataFrame:
    """Return set, row_id, text, held_out (1.0: near-duplicate of the held-out text `near`) and near of each member."""
    members = checks.members_of({name: rows for name, rows in sets.items() if name != "calibration"})  # part of train
    seen = members["set"].isin(["train", "transfer"])
    trained, held = members[seen], members[~seen]
    near = near_held(trained["text"].tolist(), held["text"].tolist(), threshold)
    members["held_out"] = 0.0
    members["near"] = ""
    for place, other in near.items():
        members.loc[trained.index[place], ["held_out", "near"]] = [1.0, held["text"].iloc[other]]
    return members


def _group_frame(sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return group, side (learnt or measured) and text (a first text of it) of each group on each side that has rows of it."""
    rows = [
        frame[[GROUP, "text"]].assign(side="learnt" if name in ("train", "transfer") else "measured")
        for name, frame in sorted(sets.items())
        if name != "calibration"  # part of train
    ]
    return pd.concat(rows).drop_duplicates([GROUP, "side"], ignore_index=True)


def _divided(groups: pd.DataFrame) -> list[str]:
    """Return a sentence about groups that are learnt from and measured, or nothing."""
    twice = groups[groups[GROUP].duplicated(keep=False)].sort_values([GROUP, "side"])
    words = f"{twice[GROUP].nunique()} groups of pairs are learnt from and measured, e.g. {read.examples(twice, 'side')}"
    return [words] if len(twice) else []


def _say_what_is_shared(sets: Mapping[str, pd.DataFrame], name: str) -> None:
    """Say how many second texts of test stand in train as well: short answers repeat, so that is told and not refused."""
    second = set(sets["test"][SECOND])
    shared = len(second & set(sets["train"][SECOND]))
    say(f"{name}: of the {len(second):,} second texts of test {shared:,} stand in train too, beside other first texts")


def _set_checks(members: pd.DataFrame, threshold: float) -> list[Expectation]:
    """Return the checks that no set leaks into another."""
    near = members[members["held_out"] > 0].sort_values("row_id")
    pairs = [(shorten(shown(str(row.text))), shorten(shown(str(row.near)))) for row in near.head(EXAMPLES).itertuples()]
    listed = "; ".join(f"{text!r} ~ {other!r}" for text, other in pairs)
    words = (
        f"{texts_are(len(near))} of train or transfer nearly equal to one of validation, test or an "
        f"evaluation set (at least {threshold:g} of their words shared; data.near_duplicate_similarity): {listed}. "
        "Put both into the same split, or set data.columns.split: null to split by content."
    )
    none = {"column": "held_out", "max_value": 0.0}
    return [
        checks.one_set_each("text", members),
        Expectation("near_duplicates_held_out", "expect_column_max_to_be_between", none, [words] if len(near) else []),
    ]
