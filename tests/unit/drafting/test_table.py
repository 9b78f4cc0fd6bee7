"""Every class stands in every set, near-duplicates together, and the copy is what was counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.tables import read_table
from tasks.drafting.raw import Raw
from tasks.drafting.roles import find_roles
from tasks.drafting.table import Prepared, prepare, write_copy


def prepared(texts: list[str], labels: list[str], splits: list[str] | None = None) -> Prepared:
    raw = Raw({"text": texts, "label": labels} | ({"split": splits} if splits else {}), len(texts))
    return prepare(raw, find_roles(raw, "text", "label"))


def texts(word: str, count: int) -> list[str]:
    return [f"{word}{i} tells of {word}{i + 1000} and {word}{i + 2000}" for i in range(count)]


def test_what_a_run_reads_as_well_is_not_copied() -> None:
    made = prepared(texts("a", 200) + texts("b", 200), ["x"] * 200 + ["y"] * 200)
    assert not made.must_copy
    assert made.columns == {"text": "text", "label": "label", "source": None, "split": None}
    assert all(made.rows_in(name)[label] for name in ("train", "validation", "test") for label in "xy")


def test_a_class_of_three_texts_is_trained_validated_and_tested(tmp_path: Path) -> None:
    made = prepared(texts("a", 300) + texts("b", 3) + texts("c", 2), ["x"] * 300 + ["rare"] * 3 + ["none"] * 2)
    assert made.classes == ["rare", "x"]
    assert [made.rows_in(name)["rare"] for name in ("train", "validation", "test")] == [1, 1, 1]
    assert any("1 classes have fewer than three" in note for note in made.notes)
    write_copy(made, tmp_path / "copy.csv")
    table = read_table(tmp_path / "copy.csv", made.columns)
    assert table.cells == {"text": made.texts, "label": made.labels, "split": made.sets}


def test_near_duplicates_move_together() -> None:
    same = ["one two three four five six seven eight nine ten", "one two three four five six seven eight nine ten!"]
    made = prepared(texts("a", 300) + same + texts("b", 2), ["x"] * 300 + ["rare"] * 4)
    chosen = dict(zip(made.texts, made.sets, strict=True))
    assert chosen[same[0]] == chosen[same[1]]
    assert {chosen[text] for text in [*same, *texts("b", 2)]} == {"train", "validation", "test"}


@pytest.mark.parametrize("words", [("train", "test"), ("Training", "testing"), ("train", "dev", "test")])
def test_the_files_own_sets_stay(words: tuple[str, ...]) -> None:
    splits = [words[i % len(words)] for i in range(400)]
    made = prepared(texts("a", 200) + texts("b", 200), ["x"] * 200 + ["y"] * 200, splits)
    assert {name: sum(made.rows_in(name).values()) > 10 for name in ("train", "validation", "test")} == dict.fromkeys(
        ("train", "validation", "test"), True
    )
    assert all(chosen == "test" for chosen, split in zip(made.sets, splits, strict=True) if split.lower().startswith("test"))
    assert made.must_copy


def test_rows_without_text_or_label_are_left_out_and_said() -> None:
    made = prepared([*texts("a", 100), "", *texts("b", 100)], [*["x"] * 100, "x", *["y"] * 99, ""])
    assert len(made.texts) == 199
    assert any("2 of 201 rows" in note for note in made.notes)


def test_a_text_that_stands_in_two_of_the_files_sets_goes_into_one() -> None:
    splits = [("train", "validation", "test", "train")[i % 4] for i in range(400)]
    rows, labels = texts("a", 200) + texts("b", 200), ["x"] * 200 + ["y"] * 200
    assert not prepared(rows, labels, splits).must_copy
    rows[1] = f"{rows[0]}!"  # train and validation
    made = prepared(rows, labels, splits)
    assert made.must_copy
    assert made.sets[0] == made.sets[1]
    assert any("1 texts are equal, or nearly" in note for note in made.notes)
