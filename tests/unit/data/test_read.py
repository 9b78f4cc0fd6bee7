"""Reading data files: every format gives the same rows, and faults are named with file, place and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.data.read import read_rows
from tasks.errors import DataError

DATA: dict[str, Any] = {
    "columns": {"text": "text", "label": "label", "source": "source", "split": None},
    "labels": {0: "negative", 1: "positive"},
}
ROWS = pd.DataFrame({"text": ['a "fine", film', "dull\nplot", "NA"], "label": ["1", "0", "positive"], "source": ["x", "x", "y"]})


def _write(rows: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = read_rows(_write(ROWS, tmp_path / f"rows{suffix}"), DATA)
    assert rows["text"].tolist() == ROWS["text"].tolist()
    assert rows["label"].tolist() == [1, 0, 1]
    assert rows["source"].tolist() == ["x", "x", "y"]
    assert rows["split"].tolist() == ["", "", ""]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,source\nfine,1,x\n", encoding="utf-8-sig")
    assert len(read_rows(path, DATA)) == 1


def test_without_a_source_column_all_rows_have_the_same_source(tmp_path: Path) -> None:
    data = DATA | {"columns": DATA["columns"] | {"source": None}}
    assert read_rows(_write(ROWS, tmp_path / "rows.csv"), data)["source"].tolist() == ["data"] * 3


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label,source\nfine,1,x\ncaf\xe9,0,x\n")
    with pytest.raises(DataError, match=r"rows\.csv: line 3 is not UTF-8 \(byte 0xe9.*iconv"):
        read_rows(path, DATA)


def test_text_in_parquet_is_checked_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": broken, "label": ["1"], "source": ["x"]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: not readable as Parquet with UTF-8 text"):
        read_rows(tmp_path / "rows.parquet", DATA)


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


@pytest.mark.parametrize(("line", "words"), [('{"text": ', "line 1 is not JSON"), ("[1]", "line 1 is not an object")])
def test_broken_json_lines(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_rows(tmp_path / "rows.jsonl", DATA)
