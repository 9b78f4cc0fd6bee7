"""A person's file is read once, kindly, and what that took is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tasks.drafting.raw import has_header, read_raw, separator_of
from tasks.errors import DataError, SourceError

MESSAGES = [
    ("ham", 'He said "ok, fine'),
    ("spam", "Win, now, cash!"),
    ("ham", 'See you, "later" then'),
    ("spam", "Free, entry"),
] * 5


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_tabs_without_a_header_with_lone_quote_marks(tmp_path: Path) -> None:
    raw = read_raw(written(tmp_path / "sms.csv", "".join(f"{label}\t{text}\n" for label, text in MESSAGES)))
    assert list(raw.columns) == ["column_1", "column_2"]
    assert list(zip(raw.columns["column_1"], raw.columns["column_2"], strict=True)) == MESSAGES
    assert not raw.as_it_is
    assert "no header" in " ".join(raw.notes)


@pytest.mark.parametrize(
    ("content", "encoding", "as_it_is"),
    [
        ("text,label\na film,1\nno film,0\n", "utf-8", True),
        ("text;label\nein Film, gut;1\nkein Film;0\n", "utf-8", True),
        ("text,label\nein schöner Film,1\nkein Film,0\n", "cp1252", False),
        ("text,label\nein schöner Film,1\nkein Film,0\n", "utf-16", False),
        ("text|label\na film|1\nno film|0\n", "utf-8", False),
    ],
)
def test_separators_and_encodings(tmp_path: Path, content: str, encoding: str, as_it_is: bool) -> None:
    raw = read_raw(written(tmp_path / "rows.csv", content, encoding))
    assert list(raw.columns) == ["text", "label"]
    assert raw.columns["label"] == ["1", "0"]
    assert raw.as_it_is is as_it_is
    assert bool(raw.notes) is not as_it_is  # what a copy is for is said


def test_gzip_and_a_quoted_line_break(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b'text,label\n"two\nlines, here",1\nno film,0\n'))
    raw = read_raw(path)
    assert raw.columns["text"] == ["two\nlines, here", "no film"]
    assert raw.as_it_is


def test_rows_with_more_fields_are_left_out_and_counted(tmp_path: Path) -> None:
    body = "a film,1\n" * 20 + "a film, a bad one,1\n"
    raw = read_raw(written(tmp_path / "rows.csv", "text,label\n" + body))
    assert raw.rows == 20
    assert "1 of 21 rows have more fields" in " ".join(raw.notes)
    assert not raw.as_it_is


def test_folders_of_texts(tmp_path: Path) -> None:
    for chosen, label, text in (("train", "pos", "fine"), ("train", "neg", "dull"), ("test", "pos", "gréat")):
        folder = tmp_path / "films" / chosen / label
        folder.mkdir(parents=True)
        written(folder / "1.txt", text, "cp1252")
    raw = read_raw(tmp_path / "films")
    assert sorted(zip(raw.columns["text"], raw.columns["label"], raw.columns["split"], strict=True)) == [
        ("dull", "neg", "train"),
        ("fine", "pos", "train"),
        ("gréat", "pos", "test"),
    ]
    (tmp_path / "flat").mkdir()
    for name in "ab":
        written(tmp_path / "flat" / f"{name}.txt", "words")
    with pytest.raises(DataError, match="2 texts without classes"):
        read_raw(tmp_path / "flat")


def test_a_list_of_objects_and_columns_of_no_use(tmp_path: Path) -> None:
    records = [{"text": "a film", "label": 1, "tags": ["x"]}, {"text": "no film", "label": 0, "tags": []}]
    raw = read_raw(written(tmp_path / "rows.json", json.dumps({"data": records})))
    assert raw.columns == {"text": ["a film", "no film"], "label": ["1", "0"]}
    assert list(raw.unusable) == ["tags"]
    lines = read_raw(written(tmp_path / "rows.jsonl", "".join(json.dumps(record) + "\n" for record in records)))
    assert lines.columns == raw.columns
    assert lines.as_it_is
    assert list(lines.unusable) == ["tags"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.json", "[1, 2]", "a list of objects is needed"),
        ("rows.json", "{", "not readable as JSON"),
        ("rows.xlsx", "PK", "save the sheet as .csv"),
        ("rows.csv", "", "is empty"),
        ("rows.pdf", "x", "a table is needed"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises((DataError, SourceError), match=words):
        read_raw(written(tmp_path / name, content))


def test_a_comma_in_sentences_is_no_separator() -> None:
    assert separator_of("".join(f"{label}\t{text}\n" for label, text in MESSAGES)) == "\t"
    assert separator_of("text\none, two\nthree\n") == ","


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([["text", "label"], ["a film", "1"], ["no film", "1"], ["x", "1"]], True),
        ([["a long sentence that names nothing at all but tells of a film and of its end", "1"], ["x", "0"]], False),
        ([["ham", "hello"], ["ham", "you"], ["spam", "win"], ["ham", "me"], ["ham", "it"]], False),
        ([["1", "text"], ["2", "more"]], False),
    ],
)
def test_a_first_row_of_values_is_no_header(rows: list[list[str]], named: bool) -> None:
    assert has_header(rows) is named
