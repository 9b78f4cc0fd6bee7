"""Answers as rows of a table: those of the file they are to, and our columns behind."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from tasks.errors import UserError
from tasks.using.forms import Row

if TYPE_CHECKING:
    from tasks.using.classifier import Answer

SEPARATORS: Final = {"csv": ",", "tsv": "\t"}
ENDINGS: Final = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "csv", "": "csv"}
DIGITS: Final = 7  # of a score: what fp32 can tell


def format_of(out: Path | None, as_json: bool) -> str:
    """Return csv, tsv or jsonl, by the ending of a file; UserError for one that says something else."""
    kind = "jsonl" if as_json else "csv"
    if out is None or not out.suffix:
        return kind
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {out}: answers are written as .csv, .tsv or .jsonl")
    named = ENDINGS[out.suffix.lower()]
    if as_json and named != "jsonl":
        raise UserError(f"--out {out}: --json writes JSON lines; let the name end in .jsonl, or leave out --json")
    return named


def own_columns(columns: Sequence[str], labels: Sequence[str], all_scores: bool) -> list[str]:
    """Return what our columns are called: label, score, and a score a class; `predicted_` before a name that the file has."""
    wanted = ["label", "score", *([f"score_{name}" for name in labels] if all_scores else [])]
    return [_free(name, columns) for name in wanted]


def _free(name: str, taken: Sequence[str]) -> str:
    return _free(f"predicted_{name}", taken) if name in taken else name


def write(
    answers: Iterable[tuple[Row, Answer | None]], columns: Sequence[str], own: Sequence[str], file: TextIO, kind: str
) -> None:
    """Write rows with their answers; a row without an answer has empty cells, or null."""
    if kind == "jsonl":
        for row, answer in answers:
            file.write(json.dumps({**row, **_own(answer, own)}, ensure_ascii=True, default=_plain) + "\n")
        return
    writer = csv.writer(file, delimiter=SEPARATORS[kind], lineterminator="\n")
    writer.writerow([_cell(name) for name in (*columns, *own)])
    for row, answer in answers:
        writer.writerow([*(_cell(row.get(name)) for name in columns), *(_cell(value) for value in _own(answer, own).values())])


def as_shown(score: float) -> float:
    """Return a score in as many digits as it has."""
    return float(f"{score:.{DIGITS}g}")


def _own(answer: Answer | None, own: Sequence[str]) -> dict[str, Any]:
    if answer is None:
        return dict.fromkeys(own)
    scores = [as_shown(score) for score in (answer.score, *answer.scores)]
    return dict(zip(own, [answer.label, *scores], strict=False))


def _plain(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False, default=_plain) if isinstance(value, list | dict | bool) else _plain(value)
    return text.encode(errors="backslashreplace").decode()


@contextmanager
def whole_or_absent(out: Path) -> Iterator[TextIO]:
    """Give a file that gets the name `out` when all is written, in place of one that is there."""
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: {'is a folder' if out.is_dir() else 'its folder does not exist'}; name a file in a folder")
    folder = out.absolute().parent
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=folder, prefix=f".{out.name}-", delete=False) as file:
        partial = Path(file.name)
        try:
            yield file  # type: ignore[misc]  # a wrapper with every method of a text file
            file.flush()
            partial.chmod(0o644)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
