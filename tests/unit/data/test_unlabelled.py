"""Texts without labels: read from tables, documents, tagged words and by patterns, and refused in words."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.artifacts import original_of
from tasks.data.frames import COLUMNS
from tasks.data.near import near_held
from tasks.data.stress import form_lines, forms_of, text_sets, with_changed_set
from tasks.data.transfer import SPLICED, too_few, transfer_set
from tasks.data.unlabelled import read_texts, text_faults
from tasks.errors import DataError

PLAIN: dict[str, Any] = {"column": None, "pattern": None, "words": False, "sentences": None}
TAGGED = "@ann\tO\nis\tO\nn't\tO\nhere\tO\n.\tO\n\t\nOh\tO\n,\tO\nyes\tO\n:)\tO\n"


def texts(place: Path, **how: Any) -> list[str]:
    return sorted(read_texts(place, {**PLAIN, **how}, "data.stress.sets.s.source").values())


def test_each_way_of_reading(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,other\nOne.  Two here!,1\none.  two HERE!,2\n", encoding="utf-8")
    assert texts(tmp_path / "rows.csv", column="text") == ["One. Two here!"]  # one text, but for case
    limits = {"min_words": 2, "max_words": 5}
    assert texts(tmp_path / "rows.csv", column="text", sentences=limits) == ["Two here!", "one. two HERE!"]
    (tmp_path / "chat.yml").write_text("- - Hello there\n  - Hi!\n# no\n", encoding="utf-8")
    assert texts(tmp_path / "chat.yml", pattern="^(?:- |  )- (.+)$") == ["Hello there", "Hi!"]
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress(b"word\tone | two\n"))
    assert texts(tmp_path / "lines.txt.gz", pattern=r"(?:\t| \| )(.+?)(?= \| |$)") == ["one", "two"]
    (tmp_path / "tags.txt").write_text(TAGGED, encoding="utf-8")
    assert texts(tmp_path / "tags.txt", words=True) == ["@ann isn't here.", "Oh, yes :)"]
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("A document.\nTwo lines.", encoding="utf-8")
    assert texts(tmp_path / "folder") == ["A document. Two lines."]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "no folder of .txt files"),
        ({"column": "words"}, "words"),
        ({"pattern": "^never (.+)$"}, "no text was found"),
        ({"words": True}, "is a table"),
    ],
)
def test_what_cannot_be_read_so_is_said(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    place = tmp_path / "rows.csv"
    place.write_text("text,label\nfine,1\n", encoding="utf-8")
    [fault] = text_faults(place, {**PLAIN, **how}, "data.stress.sets.posts.source")
    assert fault.startswith("data.stress.sets.posts.source: ")
    assert words in fault
    assert text_faults(place, {**PLAIN, "column": "text"}, "k") == []


def rows(texts: list[str], source: str = "home") -> pd.DataFrame:
    return pd.DataFrame([(f"{i:016x}", text, -1, source) for i, text in enumerate(texts)], columns=list(COLUMNS))


def test_stress_texts_are_none_of_the_task_and_stand_in_one_set() -> None:
    own = [f"number {i} of the rows that the task has itself already" for i in range(5)]
    candidates = {f"{i:016x}": f"wholly other words stand here {i} {i * i} {i + 3}" for i in range(30)}
    near = {"f" * 16: "of the rows that the task has itself already number 3"}
    stress = {"sets": {"a": {"rows": 12}, "b": {"rows": 12}}}
    found = text_sets({"a": {**candidates, **near}, "b": candidates}, stress, {"0" * 15 + "1"}, own, 0.9)
    assert {name: len(frame) for name, frame in found.items()} == {"stress_a": 12, "stress_b": 12}
    ids = [row for frame in found.values() for row in frame["row_id"]]
    assert len(set(ids)) == 24
    assert not {"f" * 16, "0" * 15 + "1"} & set(ids)
    assert found["stress_a"]["source"].unique().tolist() == ["a"]
    with pytest.raises(DataError, match=r"stress.sets.b.rows: 12 asked; [1-9] texts .* Ask for at most [1-9],"):
        text_sets({"a": candidates, "b": dict(list(candidates.items())[:13])}, stress, set(), own, 0.9)


def test_a_changed_set_has_rows_as_written_and_a_copy_for_each_kind() -> None:
    sets = {"train": rows(["some words of training"]), "validation": rows([f"the film is {i}" for i in range(9)])}
    wanted = {"changed": {"of": "validation", "rows": 4, "kinds": ["handles", "stretched", "negation"]}}
    made = with_changed_set(sets, wanted)["changed_validation"]
    assert made["source"].value_counts().to_dict() == {"as_written": 4, "handles": 4, "negation": 4, "stretched": 4}
    assert made["row_id"].is_unique
    written = made[made["source"] == "as_written"].set_index("row_id")["text"]
    for row in made.itertuples():
        assert original_of(row.row_id) in written.index
        assert (row.text == written[original_of(row.row_id)]) == (row.source == "as_written")
    assert with_changed_set(sets, None) == sets
    without_vowels = {**sets, "validation": rows(["sh hmm"])}
    assert "stretched" not in with_changed_set(without_vowels, wanted)["changed_validation"]["source"].tolist()


def test_the_table_of_forms_names_what_transfer_rows_hardly_show() -> None:
    sets = {"transfer": rows(["plain words"] * 99 + ["a @b"]), "test": rows(["plain"])}
    sets |= {"stress_posts": rows(["@ann hi", "RT @bob yes!", "no", "so"]), "stress_news": rows(["In a word."])}
    shares = forms_of(sets)
    assert shares["transfer"]["handle"] == 0.01
    assert shares["stress_posts"]["handle"] == 0.5
    *_, last = form_lines(shares)
    assert last.startswith("stress_posts: transfer rows hardly show an @ (50.0 % against 1.00 %), a ! (25.0 %")


FILM = [f"this film number {i} had many {word} scenes in it." for i in range(40) for word in ("dull", "long", "fine")]
TRAIN = rows([f"a truly {word} little film about {i} people" for i in range(12) for word in ("warm", "cold")])
WANTED: dict[str, Any] = {"sources": ["away"], "min_words": 3, "max_words": 12, "rows": 60, "spliced_rows": 30}
HELD = ["this film number 7 had many dull scenes in it."]


def transferred(others: dict[str, dict[str, str]] | None = None, **more: Any) -> pd.DataFrame:
    wanted = {**WANTED, "broad": None, "surface": None, **more}
    return transfer_set(rows(FILM, "away"), TRAIN, HELD, wanted, 0.9, others)


def test_without_surface_and_broad_text_rows_are_as_ever() -> None:
    found = transferred()
    assert len(found) == 90
    # of a version that knew neither
    assert transferred().equals(transferred({}))
    assert set(found["source"]) == {"away", SPLICED}
    assert not found["text"].str.contains("@").any()


def test_a_share_of_all_rows_is_dressed_and_none_is_near_to_a_held_out_text() -> None:
    plain, found = transferred(), transferred(surface={"share": 0.5, "kinds": ["handles"]})
    assert len(found) == len(plain) == 90
    assert 30 < found["text"].str.startswith("@").sum() < 60
    kept = found[~found["text"].str.startswith("@")]
    assert set(kept["row_id"]) <= {*plain["row_id"], *transferred(rows=117)["row_id"]}
    assert near_held(found["text"].tolist(), HELD, 0.9) == {}
    assert found["row_id"].is_unique
    assert transferred(surface={"share": 0.5, "kinds": ["handles"]}).equals(found)


def test_broad_text_comes_beside_the_rest_and_is_counted() -> None:
    glosses = {f"{i:016x}": f"an instrument of kind {i} for measuring {i} things" for i in range(100, 120)}
    broad = {"glosses": {"rows": 15}}
    found = transferred({"glosses": glosses}, broad=broad)
    assert found["source"].value_counts().to_dict() == {"away": 60, SPLICED: 30, "glosses": 15}
    assert too_few(found, {**WANTED, "broad": broad}) == []
    few = too_few(found, {**WANTED, "broad": {"glosses": {"rows": 16}}})
    assert few == ["data.transfer.broad.glosses.rows: 15 of the 16 asked for; there are no more"]
