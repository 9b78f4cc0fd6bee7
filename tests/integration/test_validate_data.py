"""validate_data: good data passes with docs to look at; each kind of bad data is refused with words and exit code 2."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from tasks.params.file import apply_overrides
from tasks.running.stage import main

ROOT = Path(__file__).parents[2]
WORDS = [f"{a}{b}" for a in "bdfglmnprst" for b in ("a", "e", "i", "o", "un", "ar", "el")]
OVERRIDES = [
    "data.task_sources=[home]",
    "data.transfer.sources=[away]",
    "data.transfer.rows=30",
    "data.transfer.broad=null",
    "data.stress={sets: {posts: {about: chat, source: 'path:chat.md', pattern: '^- (.+)$', rows: 6}}, "
    "changed: {of: validation, rows: 8, kinds: [handles]}}",
    "data.evaluation_sets.imdb.rows=10",
    "data.evaluation_sets.imdb.sources=[away]",
    "data.calibration_rows=20",
    "validate_data.min_rows_per_class=20",
    "validate_data.max_characters=400",
]
pytestmark = pytest.mark.filterwarnings(
    "ignore:module 'sre_:DeprecationWarning"  # Great Expectations imports it
)


def _rows() -> pd.DataFrame:
    rng = random.Random(0)
    home = [" ".join(rng.sample(WORDS, 9)) for _ in range(120)]
    away = [". ".join(" ".join(rng.sample(WORDS, 6)).capitalize() for _ in range(3)) + "." for _ in range(60)]
    labels = [i % 2 for i in range(180)]
    return pd.DataFrame({"text": home + away, "label": labels, "source": ["home"] * 120 + ["away"] * 60})


def _params(folder: Path, *more: str) -> Path:
    text = apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), [*OVERRIDES, *more], "params.yaml")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    return folder / "params.yaml"


def _arguments(folder: Path, rows: pd.DataFrame | bytes, *more: str) -> list[str]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    raw = rows if isinstance(rows, bytes) else rows.to_csv(index=False).encode()
    (data / "rows.csv").write_bytes(raw)
    (data / "stress/posts").mkdir(parents=True, exist_ok=True)
    chat = "".join(f"- hello there number {number}, how are {number} friends\n" for number in range(9))
    (data / "stress/posts/chat.md").write_text(chat, encoding="utf-8")
    params = _params(folder, *more)
    out = folder / "validation"
    return ["validate_data", "--data", str(data), "--out", str(out), "--params", str(params)]


def _refusal(folder: Path, capsys: pytest.CaptureFixture[str], rows: pd.DataFrame, *more: str) -> str:
    """Return the message with which the stage refuses `rows`; its docs and summary stay for looking at."""
    assert main(_arguments(folder, rows, *more)) == 2
    assert (folder / "validation/data_docs/index.html").is_file()
    summary = json.loads((folder / "validation/summary.json").read_text())
    assert not summary["success"]
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert all(problem in message for problem in summary["problems"])
    return message


def test_good_data_passes_twice_with_the_same_bytes(tmp_path: Path) -> None:
    arguments = _arguments(tmp_path, _rows())
    summaries = []
    for _ in range(2):
        assert main(arguments) == 0
        summaries.append((tmp_path / "validation/summary.json").read_bytes())
    assert summaries[0] == summaries[1]
    summary = json.loads(summaries[0])
    assert summary["success"]
    assert summary["problems"] == []
    assert all(one["success"] for one in summary["expectations"])
    assert summary["sets"]["imdb"]["classes"] == {"negative": 5, "positive": 5}
    docs = tmp_path / "validation/data_docs"
    assert len(list(docs.glob("validations/**/*.html"))) == 4
    index = (docs / "index.html").read_text()
    assert str(tmp_path) not in index
    assert index.count("<tr class=") == len(summary["expectations"]) == index.count("<td>met<td>")
    assert "element_count 180, unexpected_count 0" in index
    links = re.findall(r'href="([^"]+)"', index)
    assert links
    assert all((docs / link).is_file() for link in links)
    asks = re.compile(r"""(?:src|<link[^>]*href)=["']https?:|url\(["']?https?:|@import""")
    assert [str(page) for page in docs.rglob("*.html") if asks.search(page.read_text())] == []


def test_a_missing_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = _refusal(tmp_path, capsys, _rows().rename(columns={"label": "labels"}))
    assert "rows.csv: no column 'label', which data.columns.label names; did you mean 'labels'?" in message


def test_what_is_cut_and_what_is_read_otherwise_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows().astype({"label": object})
    rows.loc[1, "text"] += " <br /> <user>"
    rows.loc[3, "label"] = "1.0"
    assert main(_arguments(tmp_path, rows)) == 0
    said = capsys.readouterr()
    assert "rows.csv: 1 row with the label '1.0', read as '1'" in said.out + said.err
    assert "rows.csv: markup is cut out of the texts, 1 times (br x 1); other words" in said.out + said.err


def test_data_with_faults_is_not_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _refusal(tmp_path, capsys, _rows().head(3))
    flags = {name: tmp_path / name for name in ("data", "teacher", "sets", "summary", "tokens", "validation")}
    flags |= {"validation": tmp_path / "validation/summary.json", "params": tmp_path / "params.yaml"}
    words = [word for name, path in flags.items() for word in (f"--{name}", str(path))]
    assert main(["prepare", *words]) == 2
    assert "summary.json: the data has faults; mend them and run `dvc repro validate_data`" in capsys.readouterr().err
    assert not (tmp_path / "sets").exists()


def test_bytes_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = _rows().to_csv(index=False).encode() + b"caf\xe9 au lait,0,home\n"
    assert main(_arguments(tmp_path, raw)) == 2
    assert "rows.csv: line 182 is not UTF-8" in capsys.readouterr().err


def test_an_unknown_label_and_an_empty_text_are_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows()
    rows.loc[4, "label"] = 7
    rows.loc[6, "text"] = " <br /> "
    message = _refusal(tmp_path, capsys, rows)
    assert "2 faults in the data" in message
    assert "1 row with an unknown label ('7' x 1), e.g. row 5" in message
    assert "Allowed: 0 or negative, 1 or positive" in message
    assert "1 row with an empty text (row 7" in message


def test_three_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = _refusal(tmp_path, capsys, _rows().head(3))
    assert "3 rows belong to the task (negative 2, positive 1); each class needs at least 20" in message


def test_the_same_sentence_in_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows()
    rows["part"] = ["test" if i % 5 < 2 else "validation" if i % 5 < 3 else "train" for i in range(len(rows))]
    rows.loc[3, "text"] = rows.loc[1, "text"].upper()  # row 4 trains, row 2 tests
    rows.loc[3, "label"] = rows.loc[1, "label"]
    message = _refusal(tmp_path, capsys, rows, "data.columns.split=part")
    assert "1 text is in two splits: " in message
    assert "in test, train" in message


def test_nearly_the_same_sentence_in_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows()
    rows["part"] = ["test" if i % 5 < 2 else "validation" if i % 5 < 3 else "train" for i in range(len(rows))]
    rows.loc[1, "text"] = " ".join(WORDS[:30])
    rows.loc[3, "text"] = " ".join(WORDS[1:30])
    message = _refusal(tmp_path, capsys, rows, "data.columns.split=part")
    assert "nearly equal to one of validation, test or an evaluation set (at least 0.9 of their words" in message


def test_limits_on_lengths_copies_labels_and_balance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows()
    rows.loc[2, "text"] = "word " * 200
    copies = pd.concat([rows, rows.head(40), rows.head(4).assign(label=1 - rows.head(4)["label"])])
    more = ["validate_data.max_class_share=0.5001", "validate_data.min_rows_per_class=83"]
    message = _refusal(tmp_path, capsys, copies[: 180 + 43], *more)
    assert "longer than 400 characters (validate_data.max_characters): row 3 (999)" in message
    assert "43 of 223 rows (19.3%) repeat an earlier text" in message
    assert "with another label, e.g. row" in message
    assert "each class needs at least 83 (validate_data.min_rows_per_class), and negative" in message
    assert "is more than 50% of the 163 rows of the task" in message


def test_fewer_reviews_than_an_evaluation_set_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = _refusal(tmp_path, capsys, _rows(), "data.evaluation_sets.imdb.rows=1000")
    assert "data.evaluation_sets.imdb.rows: 1000 needs 500 different texts of class 'negative'" in message
