"""The command that answers a person's texts with a model."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from tasks.cli.console import answers_file, err, print_json
from tasks.errors import ParamsError

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A folder with a model, MODEL[@ALIAS|/VERSION], VERSION or ALIAS alone, or a round such as r3."
    ),
]


def predict(
    model: Model,
    file: Annotated[str, typer.Argument(metavar="FILE", help=".csv, .tsv, .jsonl, .parquet or .txt; - is standard input.")],
    onnx: Annotated[
        bool | None,
        typer.Option("--onnx/--int8", help="Run its ONNX file, or the int8 one, by ONNX Runtime; else torch runs it."),
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="text=NAME", help="The column that holds the texts.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the score of each class, a column each.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write them there: .csv, .tsv or .jsonl.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines in place of CSV; with --out also one JSON value of what was done.")
    ] = False,
) -> None:
    """Answer the texts of a file with a classifier: its rows with `label` and `score`, as CSV, or as JSON lines with --json.

    The answers are those of stock transformers. A text is cut where the model reads no further, and such texts are counted.
    """
    started = time.perf_counter()
    from tasks.using.model import INT8, ONNX, TORCH, find_model
    from tasks.using.texts import open_texts
    from tasks.using.write import format_of, own_columns, whole_or_absent, write

    kind, form = format_of(out, as_json), TORCH if onnx is None else ONNX if onnx else INT8
    named = _column(column)
    found = find_model(model, Path.cwd())
    found.file(form)
    with open_texts(file, named, found.column) as texts:
        for note in texts.notes:
            err.print(f"note: {texts.name}: {note}")
        from tasks.using.answers import answered, load  # torch: only once the texts are known to be fine

        classifier = load(found, form)
        own = own_columns(texts.columns, classifier.labels, all_)
        if own[:2] != ["label", "score"]:
            err.print(f"note: {texts.name} has such a column already, so answers stand in {own[0]} and {own[1]}")
        with whole_or_absent(out) if out else nullcontext(answers_file()) as place:
            write(answered(classifier, texts), texts.columns, own, place, kind)
    tally = classifier.tally
    facts = {"model": found.words, "form": form, "rows": tally.rows, "cut": tally.cut, "without_text": tally.empty}
    facts |= {"max_tokens": classifier.longest, "path": str(out) if out else None}
    if as_json and out:
        print_json(facts)
    if tally.cut:
        were = "was" if tally.cut == 1 else "were"
        err.print(f"{tally.cut:,} of {tally.rows:,} texts {were} cut at {classifier.longest} tokens")
    if tally.empty:
        have = "has" if tally.empty == 1 else "have"
        err.print(f"{tally.empty:,} of {tally.rows:,} rows {have} no text, and no answer")
    where = f" into {out}" if out else ""
    rows = "1 row" if tally.rows == 1 else f"{tally.rows:,} rows"
    err.print(f"{rows} answered by {found.words} ({form}){where} in {time.perf_counter() - started:.1f} s")


def _column(given: str | None) -> str | None:
    use, _, name = (given or "text=").partition("=")
    if use != "text" or (given is not None and not name):
        raise ParamsError(f"--column {given}: write text=NAME, with the name of the column that holds the texts")
    return name or None
