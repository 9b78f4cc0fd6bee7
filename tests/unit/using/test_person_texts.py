"""The texts of a person's file: every kind of file, row by row, with what had to be guessed."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.errors import DataError, UserError
from tasks.using.forms import Row
from tasks.using.texts import Texts, open_texts, text_of


def rows_of(path: Path | str, column: str | None = None, usual: str | None = None) -> tuple[Texts, list[Row]]:
    with open_texts(str(path), column, usual) as texts:
        rows = [row for batch in texts.batches(2) for row in batch]
        assert len(rows) == texts.rows
        return texts, rows


def texts_of(path: Path | str, column: str | None = None) -> list[str]:
    texts, rows = rows_of(path, column)
    return [text_of(row, texts.text) for row in rows]


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "content", "encoding", "expected"),
    [
        ("a.csv", 'id,text\n1,"two\nlines, here"\n2,\n', "utf-8", ["two\nlines, here", ""]),
        ("a.tsv", 'label\ttext\nham\tHe said "ok, fine\nspam\t"Win" now\n', "utf-8", ['He said "ok, fine', '"Win" now']),
        ("a.csv", "text;stars\nein schöner Film;5\n", "cp1252", ["ein schöner Film"]),
        ("a.csv", "text,stars\nein schöner Film,5\n", "utf-16", ["ein schöner Film"]),
        ("a.csv", "sep=|\ntext|stars\na film|5\n", "utf-8", ["a film"]),
        ("a.txt", "ham\tGo now\nspam\tWin cash\n" * 3, "utf-8", ["Go now", "Win cash"] * 3),
        ("a.txt", "ham\tGo now, please\nspam\tWin a lot\nham\tSee you", "utf-8", ["Go now, please", "Win a lot", "See you"]),
        ("a.txt", "A film, really.\n\nNo film, no plot.\r\n", "utf-8", ["A film, really.", "", "No film, no plot."]),
        ("a.txt", "text\na film\n", "utf-8", ["a film"]),
        ("a.jsonl", '{"text": "a"}\n\n{"text": null, "more": [1]}\n', "utf-8", ["a", ""]),
        ("a.json", '{"data": [{"review": "a film"}, {"review": "no film"}]}', "utf-8", ["a film", "no film"]),
        ("a.txt", '{"text": "a"}\n{"text": "b"}\n', "utf-8", ["a", "b"]),
        ("a", "id,comment\n1,so long\n2,so short\n", "utf-8", ["so long", "so short"]),
    ],
)
def test_what_is_read(name: str, content: str, encoding: str, expected: list[str], tmp_path: Path) -> None:
    assert texts_of(written(tmp_path / name, content, encoding)) == expected


def test_parquet_and_gzip(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a film", None], "stars": [1, 2]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert texts_of(tmp_path / "a.parquet") == ["a film", ""]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,stars\na film,1\n"))
    assert texts_of(tmp_path / "a.csv.gz") == ["a film"]


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, expected in ((b"a film\nno film", ["a film", "no film"]), (b"id,text\n1,a film\n", ["a film"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert texts_of("-") == expected


def test_the_column_of_the_texts_is_said_or_usual_or_called_so(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", "title,body,stars\na fine film of ours,so they all said,1\nno film at all,they said so,2\n"
    )
    assert rows_of(path)[0].text == "body"
    assert rows_of(path)[0].notes == ("texts are those of the column 'body'",)
    assert rows_of(path, usual="title")[0].text == "title"
    assert rows_of(path, "title")[0].notes == ()
    with pytest.raises(DataError, match="did you mean 'title'"):
        rows_of(path, "titel")
    alone = written(tmp_path / "b.csv", "words\na film\n")
    assert rows_of(alone)[0].text == "words"
    pairs = written(tmp_path / "c.csv", "premise,hypothesis\nit is a film,it is none\nit was one,no it was not\n")
    with pytest.raises(DataError, match="pairs of texts"):
        rows_of(pairs)
    assert texts_of(pairs, "premise") == ["it is a film", "it was one"]
    doubtful = written(tmp_path / "d.csv", "one,two\nit is a film,it is no film\nit was one,no it was not one\n")
    with pytest.raises(DataError, match="--column text="):
        rows_of(doubtful)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"text,stars\na,1\nb, c and d,2\n", "line 3 has 3 fields"),
        ("a.csv", b'text,stars\n"a,1\nb,2,3\n', "unexpected end of data"),
        ("a.csv", b"text,stars\n", "holds no row"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text\na\0b\n", "line 2 holds a NUL"),
        ("a.csv", b"PK\x03\x04xxxx", "is a zip archive"),
        ("a.csv.gz", gzip.compress(b"text\na film\n", mtime=0)[:-6], "not readable as gzip"),
        ("a.xlsx", b"x", "save the sheet as .csv"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "line 2 is not an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "row 2: 'text' is a number"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
        ("a.parquet", b"PAR1PAR1", "not readable as Parquet"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_else(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        rows_of(tmp_path / name)


def test_what_is_no_file(tmp_path: Path) -> None:
    for given, words in ((tmp_path, "is a folder"), (tmp_path / "none.csv", "there is no such file")):
        with pytest.raises(UserError, match=words):
            rows_of(given)


def test_names_of_all_rows_are_known_and_values_stay_as_they_are(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [{"text": "a"}] * 600 + [{"text": "b", "more": {"x": [1.5, None]}}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    texts, rows = rows_of(path)
    assert texts.columns == ("text", "more")
    assert rows == records


def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("id,text\n")
        file.writelines(f'{number},"a film, number {number} {"and more " * 40}"\n' for number in range(10_000))
    with open_texts(str(path)) as texts:
        tracemalloc.start()
        assert sum(len(batch) for batch in texts.batches(100)) == 10_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 500_000 < path.stat().st_size / 7
