"""The table that a run will read: the person's file where it will do, else a copy in which every class stands in every set."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from tasks.data.clean import clean_text, row_id
from tasks.data.near import clusters
from tasks.data.splits import SPLITS as SETS
from tasks.data.splits import set_at, unique_rows
from tasks.drafting.raw import SPLITS, Raw
from tasks.drafting.roles import Roles, classes_of

SHARES: Final = {"validation": 0.12, "test": 0.12}
NEAR: Final = 0.9  # data.near_duplicate_similarity
COPIED_COLUMNS: Final = {"text": "text", "label": "label", "split": "split"}
SHOWN: Final = 5  # classes in a note


@dataclass(frozen=True)
class Prepared:
    """Texts with the names of their classes and their sets, and how many rows each class has in each set.

    `columns` says by use what the columns of the file are called that a run reads, `must_copy` whether that is a copy.
    """

    texts: list[str]
    labels: list[str]
    sets: list[str]
    classes: list[str]
    columns: dict[str, str | None]
    must_copy: bool
    notes: list[str]

    def rows_in(self, name: str) -> Counter[str]:
        """Return class -> rows of a set."""
        return Counter(label for label, chosen in zip(self.labels, self.sets, strict=True) if chosen == name)

    def rows(self) -> Counter[str]:
        """Return class -> rows, in the order of the classes."""
        counted = Counter(self.labels)
        return Counter({name: counted[name] for name in self.classes})


def prepare(raw: Raw, roles: Roles) -> Prepared:
    """Return the rows of a table as a run will have them; texts in two classes or twice are still there."""
    notes = list(raw.notes)
    written, _ = classes_of(raw.columns[roles.label])
    splits = raw.columns[roles.split] if roles.split else [""] * raw.rows
    rows = [
        (text, written.get(label, ""), SPLITS.get(split.strip().casefold(), ""))
        for text, label, split in zip(raw.columns[roles.text], raw.columns[roles.label], splits, strict=True)
    ]
    must_copy = not raw.as_it_is
    kept = [row for row in rows if row[1] and clean_text(row[0])]
    if gone := len(rows) - len(kept):
        notes.append(f"{gone:,} of {len(rows):,} rows have no text or no label and are left out")
        must_copy = True
    if respelled := sorted(
        f"{s!r}" for s, name in written.items() if s.strip() != name and not re.fullmatch(rf"{re.escape(name)}\.0*", s.strip())
    ):
        notes.append(f"labels that differ in capitals or blanks are one class: {_some(respelled)}")
        must_copy = True
    if raw.classes and all(label.isdigit() and int(label) < len(raw.classes) for _, label, _ in kept):
        kept, must_copy = [(text, raw.classes[int(label)], split) for text, label, split in kept], True
        notes.append(f"the file names its classes: {_some(list(raw.classes))}")
    frame = pd.DataFrame(kept, columns=["text", "label", "split"], dtype=str).assign(source="data")
    given = roles.split is not None
    if given and any(split.strip() not in SETS for split in splits if split.strip()):
        must_copy = True  # the sets are there by other names
    placed, left_out, moved = _placed(frame, given)
    if left_out:
        words = "classes have fewer than three different texts, too few to train, validate and test on; they are left out"
        notes.append(f"{len(left_out)} {words}: {_some(sorted(left_out))}")
    if moved:
        notes.append(f"texts were moved between sets so that each class stands in all three: {_some(sorted(moved))}")
    frame = frame.assign(set=placed)
    if given and (parted := int(((frame["split"] != "") & (frame["set"] != frame["split"])).sum())) and not moved:
        notes.append(f"{parted:,} texts are equal, or nearly, to one in another of the file's own sets, and go with it")
        must_copy = True
    must_copy = must_copy or bool(left_out or moved)
    frame = frame[~frame["label"].isin(left_out)]
    order = list(classes_of(frame["label"].tolist())[1])
    if set(order) <= set(raw.classes):
        order = [name for name in raw.classes if name in order]  # as the file, or a person, numbers them
    with_sets = given or bool(moved)
    columns = (
        {"text": "text", "label": "label", "source": None, "split": "split" if with_sets else None}
        if must_copy
        else {"text": roles.text, "label": roles.label, "source": None, "split": roles.split}
    )
    return Prepared(frame["text"].tolist(), frame["label"].tolist(), frame["set"].tolist(), order, columns, must_copy, notes)


def _placed(frame: pd.DataFrame, given: bool) -> tuple[list[str], set[str], set[str]]:
    """Return the set of each row, the classes that cannot stand in all three, and those of which texts were moved.

    Sets are those of the file, which may lack validation, or follow from the texts as `tasks.data.splits` has it. Near-duplicates
    stay together.
    """
    labelled = frame.assign(label=pd.factorize(frame["label"])[0], name=frame["label"])
    rows = unique_rows(labelled)
    root = clusters(rows["text"].tolist(), NEAR)
    smallest: dict[int, str] = {}
    for row, place in zip(rows["row_id"], root, strict=True):
        smallest[place] = min(smallest.get(place, row), row)
    hashed = {place: set_at(row, SHARES) for place, row in smallest.items()}
    chosen = dict(hashed)
    moved: set[str] = set()
    if given:
        for place, split in zip(root, rows["split"], strict=True):
            chosen[place] = split or chosen[place]
        if "validation" not in set(rows["split"]):
            chosen |= {place: "validation" for place in chosen if (chosen[place], hashed[place]) == ("train", "validation")}
            moved.add("all, since validation had to be taken from train")
    members: dict[str, list[int]] = {}
    for place, name in dict(zip(root, rows["name"], strict=True)).items():
        members.setdefault(name, []).append(place)
    left_out = set(frame["label"]) - {name for name, places in members.items() if len(places) >= len(SETS)}
    for name, places in members.items():
        if name not in left_out and _fill(sorted(places, key=smallest.__getitem__), chosen):
            moved.add(name)
    by_row = {row: chosen[place] for row, place in zip(rows["row_id"], root, strict=True)}
    return [by_row.get(row_id(clean_text(text)), "train") for text in frame["text"]], left_out, moved


def _fill(places: Sequence[int], chosen: dict[int, str]) -> bool:
    """Move clusters of a class into the sets that have none of it, from the set that has most; return whether any was."""
    any_moved = False
    for missing in SETS:
        counts = Counter(chosen[place] for place in places)
        if not counts[missing]:
            giver = max(SETS, key=lambda name: counts[name])
            chosen[next(place for place in places if chosen[place] == giver)] = missing
            any_moved = True
    return any_moved


def write_copy(prepared: Prepared, path: Path) -> None:
    """Write the rows as a .csv that every run reads alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with_sets = prepared.columns["split"] is not None
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", *(["split"] if with_sets else [])])
        for text, label, chosen in zip(prepared.texts, prepared.labels, prepared.sets, strict=True):
            writer.writerow([text, label, *([chosen] if with_sets else [])])


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def counts_in_words(rows: Mapping[str, int]) -> str:
    """Return classes with their rows, the frequent ones first: `ham 4,220, spam 642`."""
    ordered = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return _some([f"{name} {count:,}" for name, count in ordered])
