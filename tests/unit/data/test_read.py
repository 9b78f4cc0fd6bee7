"""Reading data files: every format gives the same rows, odd ones the right rows or a sentence with file, place and remedy."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.data import look
from tasks.data.classification import checked
from tasks.data.documents import read_documents
from tasks.data.faults import label_codes, labels_read_otherwise
from tasks.data.look import documents_faults, table_faults
from tasks.data.read import read_rows
from tasks.data.sources import data_file, is_text_folder, kind_of, text_files
from tasks.errors import DataError, SourceError

LABELS = {0: "negative", 1: "positive"}
COLUMNS: dict[str, str | None] = {"text": "text", "label": "label", "source": "source", "split": None}
DATA: dict[str, Any] = {"columns": COLUMNS, "labels": LABELS}
PLAIN: dict[str, Any] = {"columns": {**COLUMNS, "source": None}, "labels": LABELS}
ROWS = pd.DataFrame({"text": ['a "fine", film', "dull\nplot", "NA"], "label": ["1", "0", "positive"], "source": ["x", "x", "y"]})


def _write(rows: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    elif kind_of(path) in (".jsonl", ".ndjson"):
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if kind_of(path) == ".tsv" else ",")
    return path


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _pairs(path: Path, data: dict[str, Any] = PLAIN) -> list[tuple[str, int]]:
    rows = read_rows(path, data)
    return list(zip(rows["text"], rows["label"], strict=True))


def _refused(path: Path, data: dict[str, Any] = PLAIN) -> str:
    """Return why a file is refused: the stages and the look before a run say the same."""
    with pytest.raises(DataError) as caught:
        read_rows(path, data)
    looked = table_faults(path, "data.source", data["columns"], data["labels"])
    assert looked == [f"{path.parent}/{line}" for line in str(caught.value).splitlines()]
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl", "rows.ndjson", "rows.TSV", "rows.csv.gz", "R.Csv.GZ", "a.b.jsonl.gz"],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = _write(ROWS, tmp_path / name)
    assert data_file(tmp_path) == path
    rows = read_rows(path, DATA)
    assert rows["text"].tolist() == ROWS["text"].tolist()
    assert rows["label"].tolist() == [1, 0, 1]
    assert rows["source"].tolist() == ["x", "x", "y"]
    assert rows["split"].tolist() == ["", "", ""]
    assert table_faults(path, "data.source", COLUMNS, LABELS) == []


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,source\nfine,1,x\n", encoding="utf-8-sig")
    assert len(read_rows(path, DATA)) == 1


def test_without_a_source_column_all_rows_have_the_same_source(tmp_path: Path) -> None:
    assert read_rows(_write(ROWS, tmp_path / "rows.csv"), PLAIN)["source"].tolist() == ["data"] * 3


@pytest.mark.parametrize(
    ("name", "content", "pairs"),
    [
        ("a.csv", "text,label,\nfine,1,\ndull,0,\n", [("fine", 1), ("dull", 0)]),
        ("a.csv", "text,label\nfine,1,\ndull,0,\n", [("fine", 1), ("dull", 0)]),
        ("a.csv", "text;label\nfine, and so on;1\n", [("fine, and so on", 1)]),
        ("a.csv", 'text,label\r\n"fine\r\nfilm",1\r\n\r\n  \r\ndull,0', [("fine\r\nfilm", 1), ("dull", 0)]),
        ("a.csv", "text,label\rfine,1\rdull,0\r", [("fine", 1), ("dull", 0)]),
        ("a.csv", "more,label,text\nx,1,fine\ny,0,dull\n", [("fine", 1), ("dull", 0)]),
        ("a.csv", "text,label\nfine,1, \ndull,0\n", [("fine", 1), ("dull", 0)]),
        ("a.csv", "sep=;\r\ntext;label\r\nfine, so;1\r\n", [("fine, so", 1)]),
        ("a.csv", "text,label\r\r\nfine,1\r\r\ndull,0\r\r\n", [("fine", 1), ("dull", 0)]),
        ("a.csv", "text,label\nfi\u2028ne\x85,1\ndu\x0bll,0\n", [("fi\u2028ne\x85", 1), ("du\x0bll", 0)]),
        ("a.jsonl", '{"text": "fi\u2028ne", "label": 1}\n', [("fi\u2028ne", 1)]),
        # marks that are none of quoting: at the ends of lines that are rows
        (
            "a.tsv",
            'text\tlabel\n"Great\t1\ndull\t0\nthe end"\t0\nfine\t1\n',
            [('"Great', 1), ("dull", 0), ('the end"', 0), ("fine", 1)],
        ),
        (
            "a.tsv",
            'label\ttext\n1\t"Great\n0\tdull\n0\tthe end"\n1\tfine\n',
            [('"Great', 1), ("dull", 0), ('the end"', 0), ("fine", 1)],
        ),
        ("a.tsv", 'text\tlabel\n"Great" film\t1\n5" disk\t0\n', [('"Great" film', 1), ('5" disk', 0)]),
        ("a.csv", 'text,label\n"Great,1\ndull,0\n', [('"Great', 1), ("dull", 0)]),
        (
            "a.csv",
            'text,label\nfine,1\n"Great,1\ndull,0\nthe end",1\nso,0\n',
            [("fine", 1), ('"Great', 1), ("dull", 0), ('the end"', 1), ("so", 0)],
        ),
        # and of quoting: lines within a text that look like none of the others
        ("a.csv", 'text,label\n"Great,\nreally",1\ndull,0\n', [("Great,\nreally", 1), ("dull", 0)]),
        ("a.tsv", 'text\tlabel\n"a ""fine""\tfilm"\t1\n', [('a "fine"\tfilm', 1)]),
        (
            "a.jsonl",
            '{"text": "fine", "label": 1.0}\n\n{"text": "dull\\ud83d\\ude00", "label": 0}\n',
            [("fine", 1), ("dull😀", 0)],
        ),
        ("a.jsonl", '{"text": "fine", "label": true}\n{"text": "dull", "label": false}\n', [("fine", 1), ("dull", 0)]),
    ],
)
def test_odd_files_are_read_as_they_are_meant(tmp_path: Path, name: str, content: str, pairs: list[tuple[str, int]]) -> None:
    path = _file(tmp_path, name, content)
    assert _pairs(path) == pairs
    assert table_faults(path, "data.source", PLAIN["columns"], LABELS) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\nfine,1\nwell, then,0\n", "line 3 has 3 fields, and the header has 2; put texts that hold ','"),
        (
            "a.csv",
            'text,label\n"so, so",1\n"he said \\"hi\\", ok",0\n',
            "line 3: ',' expected after '\"': .*not with a backslash",
        ),
        ("a.csv", 'text,label\n"so, so",1\n"never ends,0\n', "line 3: unexpected end of data: .* must end with one"),
        ("a.csv", "text,source,label\nfine,x,1,0\ndull,y,0,1\n", "line 2 has 4 fields, and the header has 3"),
        ("a.csv", "text,label\nfine,1\ntext,label\ndull,0\n", r"unknown label \('label' x 1\), e.g. row 2 'text'"),
        ("a.jsonl", '{"text": "x", "label": NaN}\n', r"unknown label \('nan' x 1\)"),
        ("a.tsv", '"text"\t"label"\n"a "b"\t"1"\n', "line 2: '\t' expected after"),
        ("a.csv", "text,text,label\na,b,1\n", "2 columns are called 'text'; rename all but one"),
        ("a.csv", "", "a.csv is empty; give a file with a header and rows"),
        ("a.csv", "text,label\n", "a header and no row"),
        ("a.csv", "text,label\nfine,1\n".encode("utf-16"), "a.csv is UTF-16; save it as UTF-8: `iconv -f UTF-16"),
        ("a.csv", "text,label\nfine,1\n".encode("utf-16-le"), "a.csv is UTF-16"),
        ("a.csv", b"text,label\nfine,1\nnot\0so,0\n", "a.csv: line 3 holds a NUL character"),
        ("a.csv", b"text,label\nfine,1\ncaf\xe9,0\n", r"a\.csv: line 3 is not UTF-8 \(byte 0xe9.*iconv"),
        ("a.csv", gzip.compress(b"text,label\n", mtime=0), "is compressed by gzip; let its name end in .gz"),
        ("a.csv", b"PK\x03\x04....", "is a zip archive or an Excel file; save the sheet as .csv"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS.*`git lfs pull`"),
        ("a.csv.gz", gzip.compress(b"text,label\nfine,1\n" * 99, mtime=0)[:-20], "not readable as gzip"),
        (
            "a.jsonl",
            '{"text": "x", "label": 1}\n{"text": {"a": 1}, "label": 1}\n',
            "line 2: 'text', .* is an object, not a string",
        ),
        ("a.jsonl", '{"text": ["a", "b"], "label": 1}\n', "line 1: 'text', .* is a list"),
        ("a.jsonl", '{"text": 7, "label": 1}\n', "line 1: 'text', .* is a number, not a string"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "x \\ud83d", "label": 1}\n',
            r"line 2: 'text' holds half of a surrogate pair",
        ),
        ("a.jsonl", '{"text": "x", "label": [0, 1]}\n', "line 1: 'label', .* is a list, as for several labels a text"),
        ("a.jsonl", '{"text": "x", "label": ["O", "B-PER"]}\n', "line 1: 'label', .* tags, as for finding entities"),
        ("a.jsonl", '{"text": ', "line 1 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not an object"),
        ("a.jsonl", '{"text": "fine", "label": 1, "text": "dull"}\n', "line 1 is not JSON .a key stands there twice."),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1 is not JSON"),
        ("a.parquet", b"PAR1 and no more", "not readable as Parquet"),
        # labels
        (
            "a.csv",
            "text,label\nx,1\ny,\n",
            r"1 row with an unknown label \('' x 1\), e.g. row 2 'y'.*They are empty: fill them in",
        ),
        ("a.csv", "text,label\nx,Positive\n", "Write 'Positive' as 'positive': capitals count"),
        ("a.csv", "text,label\nx,0.75\ny,3.5\n", "numbers to be predicted \\(a regression\\)"),
        ("a.csv", 'text,label\nx,"0, 1"\ny,0\n', "They look like several labels a text"),
        ("a.csv", "text,label\nx,positive|negative\n", "They look like several labels a text"),
        ("a.csv", "text,label\nx y,O B-PER\n", "tags of words, as for finding entities"),
        ("a.csv", "premise,hypothesis,label\na,b,1\n", "no column 'text'.*\n.*hypothesis and premise are pairs of texts"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    assert re.search(words, _refused(_file(tmp_path, name, content)))


def test_of_a_pair_of_texts_one_alone_is_not_learnt_in_silence(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", "premise,hypothesis,label\na,b,1\n")
    data = {"columns": PLAIN["columns"] | {"text": "premise"}, "labels": LABELS}
    assert "columns hypothesis and premise are pairs of texts" in _refused(path, data)
    assert checked(tmp_path, data, {}).problems == [_refused(path, data).removeprefix("a.csv: ")]


@pytest.mark.parametrize(
    ("labels", "written", "read"),
    [
        ({0: "negative", 1: "positive"}, ["1.0", "0.0", "1 ", " positive"], [1, 0, 1, 1]),
        ({0: "negative", 1: "positive"}, ["True", "false"], [1, 0]),
        ({0: "true", 1: "false"}, ["True", "FALSE"], [0, 1]),
        ({0: "caf\u00e9", 1: "the\u0301"}, ["cafe\u0301", "th\u00e9"], [0, 1]),
        ({0: "1", 1: "2", 2: "3"}, ["1", "2", "3.0"], [0, 1, 2]),
        ({0: "0", 1: "1"}, ["0", "1"], [0, 1]),
    ],
)
def test_a_label_written_otherwise_is_the_same_label(
    tmp_path: Path, labels: dict[int, str], written: list[str], read: list[int]
) -> None:
    data = {"columns": PLAIN["columns"], "labels": labels}
    path = _write(pd.DataFrame({"text": [f"text {i}" for i in range(len(written))], "label": written}), tmp_path / "a.jsonl")
    assert read_rows(path, data)["label"].tolist() == read
    path = _write(pd.DataFrame({"text": [f"text {i}" for i in range(len(written))], "label": written}), tmp_path / "a.csv")
    assert read_rows(path, data)["label"].tolist() == read


def test_what_is_read_otherwise_is_said_and_names_of_digits_leave_numbers_out(tmp_path: Path) -> None:
    lines = labels_read_otherwise(["1.0", "1", "1.0", " 0", "TRUE"], label_codes(LABELS))
    assert lines == ["2 rows with the label '1.0', read as '1'", "1 row with the label 'TRUE', read as '1'"]
    assert labels_read_otherwise(["1"], label_codes({0: "1", 1: "2"})) == ["labels are read as names, not as numbers of classes"]
    stars = {"columns": PLAIN["columns"], "labels": {0: "1", 1: "2"}}
    assert "unknown label ('0' x 1)" in _refused(_file(tmp_path, "a.csv", "text,label\nx,0\ny,1\n"), stars)


def _parquet(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize(
    "text",
    [
        pa.array(["fine", "dull"], pa.large_string()),
        pa.array(["fine", "dull"]).dictionary_encode(),
        pa.array([b"fine", b"dull"], pa.binary()),
        pa.array(["fine", "dull"], pa.string_view()),
    ],
    ids=lambda array: str(array.type),
)
@pytest.mark.parametrize(
    "label",
    [pa.array([1, 0]), pa.array([1.0, 0.0]), pa.array([True, False]), pa.array(["1", "negative"]).dictionary_encode()],
    ids=lambda array: str(array.type),
)
def test_columns_of_parquet_whose_meaning_is_plain_are_read(tmp_path: Path, text: Any, label: Any) -> None:
    assert _pairs(_parquet(tmp_path, text=text, label=label)) == [("fine", 1), ("dull", 0)]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"text": [["a"], ["b"]], "label": [1, 0]},
            "column 'text', which data.columns.text names, is of type list<.*string is needed",
        ),
        ({"text": [{"en": "a"}], "label": [1]}, "is of type struct<en: string>"),
        ({"text": [1.5], "label": [1]}, "is of type double; a column of type string is needed"),
        ({"text": ["a"], "label": [[1, 0]]}, "'label'.*is of type list<.*another task than one label a text"),
        ({"text": ["a", "b"], "label": [1, None]}, r"unknown label \('' x 1\), e.g. row 2 'b'"),
        ({"text": pa.array([b"caf\xe9"]).view(pa.string()), "label": [1]}, "not readable as Parquet with UTF-8 text"),
        ({"text": pa.array([b"caf\xe9"]), "label": [1]}, "not readable as Parquet with UTF-8 text"),
    ],
)
def test_other_columns_of_parquet_are_refused_by_their_type(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    assert re.search(words, _refused(_parquet(tmp_path, **columns)))


@pytest.mark.parametrize("index", [["a", "b"], pd.to_datetime(["2020-01-01", "2020-01-02"])])
def test_the_index_of_a_frame_in_parquet_does_not_hide_which_row_is_wrong(tmp_path: Path, index: Any) -> None:
    frame = pd.DataFrame({"text": ["fine", "dull"], "label": ["1", "7"]}, index=index)
    frame.to_parquet(tmp_path / "a.parquet")
    assert "unknown label ('7' x 1), e.g. row 2 'dull'" in _refused(tmp_path / "a.parquet")
    frame.set_index("text").to_parquet(tmp_path / "a.parquet")  # the text itself as the index is a column like others
    assert "row 2 'dull'" in _refused(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("names", "swapped"), [(["positive", "negative"], True), (["negative", "positive"], False), (["no", "yes"], False)]
)
def test_a_file_that_numbers_its_classes_in_another_order_is_refused(tmp_path: Path, names: list[str], swapped: bool) -> None:
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["fine", "dull"], "label": [0, 1]}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "a.parquet")
    if swapped:
        assert "its numbers mean {0: positive, 1: negative}; write data.labels so" in _refused(tmp_path / "a.parquet")
    else:
        assert _pairs(tmp_path / "a.parquet") == [("fine", 0), ("dull", 1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": {"text": "texts"}}, r"no column 'texts', which data.columns.text names; did you mean 'text'\?"),
        ({"labels": {1: "positive", 0: "bad"}, "rows": {"label": ["1", "2", "2"]}}, r"unknown label \('2' x 2\).*row 2"),
        ({"rows": {"text": ["fine", " <br /> ", ""]}}, r"2 rows with an empty text \(row 2, 3, counted from 1"),
    ],
)
def test_faults_are_explained(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    data = {"columns": DATA["columns"] | change.get("columns", {}), "labels": change.get("labels", DATA["labels"])}
    path = _write(ROWS.assign(**change.get("rows", {})), tmp_path / "rows.csv")
    with pytest.raises(DataError, match=words):
        read_rows(path, data)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows.xlsx", r"rows\.xlsx is not read; save the sheet as \.csv"),
        ("rows.json", r"rows\.json is not read; write one object a line and let the name end in \.jsonl, e\.g\. `jq"),
        ("rows.csv.zip", "unpack it, or compress the table itself by gzip"),
        (
            "rows.xml",
            r"one \.csv, \.tsv, \.parquet, \.jsonl or \.ndjson file is needed \(\.gz too, but for Parquet\); found none",
        ),
    ],
)
def test_files_of_other_kinds_are_refused_with_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    path = _file(tmp_path, name, "")
    for place in (path, tmp_path):
        with pytest.raises(SourceError, match=rf"params\.yaml: data\.source: .*{words}"):
            data_file(place)
    assert len(table_faults(path, "data.source", COLUMNS, LABELS)) == 1


def test_of_several_tables_one_is_to_be_named(tmp_path: Path) -> None:
    for number in range(2):
        _file(tmp_path, f"train-{number}.parquet", "")
    with pytest.raises(SourceError, match=r"found 2: train-0.parquet, train-1.parquet. Name one of them, or join them in one"):
        data_file(tmp_path)


def test_shadows_of_files_are_no_data(tmp_path: Path) -> None:
    path = _file(tmp_path, "rows.csv", "text,label\nfine,1\n")
    _file(tmp_path, "._rows.csv", b"\0\x05\x16\x07")
    assert data_file(tmp_path) == path
    path.unlink()
    _file(tmp_path, "a.txt", "text")
    _file(tmp_path, "._a.txt", b"\0\x05\x16\x07")
    assert is_text_folder(tmp_path)
    assert list(text_files(tmp_path, "data.source")) == ["a.txt"]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_the_label_column_is_looked_at_behind_the_head_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rows = pd.DataFrame({"text": [f'a "text", {i}' for i in range(40)], "label": ["0", "1"] * 20})
    monkeypatch.setattr(look, "HEAD", 300)
    path = _write(rows, tmp_path / name)
    assert table_faults(path, "data.source", PLAIN["columns"], LABELS) == []
    rows.loc[38, "label"] = "2"
    (fault,) = table_faults(_write(rows, path), "data.source", PLAIN["columns"], LABELS)
    assert "unknown label ('2' x 1), e.g. row 39" in fault


@pytest.mark.parametrize("line", ['"one line that is longer than the head, %s",1\n', '"a text of\nmany lines,\n%s",1\n'])
def test_a_row_may_be_longer_than_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(look, "HEAD", 40)
    path = _file(tmp_path, "a.csv", "text,label\n" + line % ("word " * 40))
    assert table_faults(path, "data.source", PLAIN["columns"], LABELS) == []


def test_marks_that_quote_nothing_behind_the_head_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "HEAD", 60)
    path = _file(tmp_path, "a.csv", "text,label\n" + "fine,1\ndull,0\n" * 8 + '"Great,1\nfine,1\nthe end",0\nfine,1\n')
    assert len(_pairs(path)) == 20
    assert table_faults(path, "data.source", PLAIN["columns"], LABELS) == []


def test_blanks_around_a_source_make_no_other_source_and_signs_that_nobody_sees_no_text(tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", "text,label,source\nfine,1,home\ndull,0,home \n")
    assert read_rows(path, DATA)["source"].tolist() == ["home", "home"]
    assert "1 row with an empty text (row 2," in _refused(_file(tmp_path, "a.csv", "text,label\n\u200d😀,1\n\u200b\u2060,0\n"))


def test_a_column_that_is_source_and_text_is_held_to_be_text(tmp_path: Path) -> None:
    data = {"columns": PLAIN["columns"] | {"source": "text"}, "labels": LABELS}
    assert "'text', which data.columns.text names, is a number" in _refused(
        _file(tmp_path, "a.jsonl", '{"text": 7, "label": 1}\n'), data
    )


def test_text_files_in_utf16_are_read_and_those_of_no_text_refused(tmp_path: Path) -> None:
    _file(tmp_path, "a.TXT", "Grüße, Welt".encode("utf-16"))
    _file(tmp_path, "b.txt", "caf\xe9".encode("cp1252"))
    assert read_documents(tmp_path, None, "data")["text"].tolist() == ["Grüße, Welt", "café"]
    _file(tmp_path, "c.txt", "Welt".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"c\.txt holds NUL bytes"):
        read_documents(tmp_path, None, "data")


@pytest.mark.parametrize("labels", [{}, {0: None, 1: "x"}, {"0": "x", 1: "y"}])
def test_faults_of_params_do_not_hide_those_of_the_file(tmp_path: Path, labels: dict[Any, Any]) -> None:
    path = _file(tmp_path, "a.csv", "text,mark\nfine,1\n")
    assert "no column 'label'" in table_faults(path, "data.source", COLUMNS, labels)[0]
    assert table_faults(path, "data.source", {"text": "text", "label": None}, labels) == []
    assert table_faults(path, "data.source", {"text": 7}, LABELS) == []  # type: ignore[dict-item]
    assert "is empty" in table_faults(_file(tmp_path, "a.csv", ""), "data.source", {}, labels)[0]


def test_documents_are_looked_at_before_a_run(tmp_path: Path) -> None:
    columns: dict[str, str | None] = {"text": "text", "source": None}
    path = _file(tmp_path, "a.csv", 'text\n""\n" "\n')
    assert documents_faults(path, "data.source", columns) == [f"{path}: column 'text' has no text in 2 rows; add documents"]
    assert "params.yaml: data.columns: a.csv is a table" in documents_faults(path, "data.source", None)[0]
    assert "no column 'body'" in documents_faults(path, "data.source", {"text": "body", "source": None})[0]
    _file(tmp_path, "a.csv", 'text\n"a line\nand another"\nfine\n')
    assert documents_faults(path, "data.source", columns) == []
    path.rename(tmp_path / "a.txt")
    wanted = "params.yaml: data.evaluation_sets.x.columns: "
    assert documents_faults(tmp_path, "data.evaluation_sets.x.source", columns)[0].startswith(wanted)
    assert documents_faults(tmp_path, "data.source", None) == []
    assert documents_faults(tmp_path / "none", "data.source", None)[0].startswith("params.yaml: data.source: ")
