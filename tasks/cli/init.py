"""The command that drafts params.yaml from a person's own data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.cli.console import Json, err, print_json
from tasks.cli.project import find_project
from tasks.errors import ParamsError

if TYPE_CHECKING:
    from tasks.drafting.make import Made

MOST_QUESTIONS = 2


def init(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table, a folder with a folder of texts a class, or pkg:, path:.")
    ],
    teacher: Annotated[str | None, typer.Option(help="The model to compress: a folder, or pkg:, path:, hub:.")] = None,
    ratio: Annotated[float | None, typer.Option(help="How many times smaller the last round is; 5 if it can be.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="USE=NAME", help="text=NAME or label=NAME: the column that holds them; repeatable."),
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="NAMES", help="Names for labels 0, 1, ..., with commas.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; what is guessed is said.")] = False,
    as_json: Json = False,
) -> None:
    """Write a params.yaml for your own texts and labels, with a reason beside each value.

    The file is looked at: separators, encoding, columns, classes, lengths, repeats. Where a run could not read it as it is, a
    copy is written below data/. `compactlm undo` takes params.yaml back.
    """
    from tasks.drafting.make import Asked, make
    from tasks.params.edit import write_text

    workspace = find_project()
    names = tuple(part.strip() for part in (classes or "").split(",") if part.strip())
    columns = _columns(column or [])
    asked = Asked(data, teacher, ratio, columns.get("text"), columns.get("label"), names)
    left = [0 if yes or as_json or not (sys.stdin.isatty() and sys.stderr.isatty()) else MOST_QUESTIONS]

    def ask(question: str, answers: Sequence[str]) -> str | None:
        if not left[0]:
            return None
        left[0] -= 1
        shown = f"{question} {', '.join(answers)}" if answers else question
        answer = str(typer.prompt(shown, default=answers[0] if answers else "", show_default=bool(answers), err=True)).strip()
        while answers and answer not in answers:
            answer = str(typer.prompt(f"One of {', '.join(answers)}", default=answers[0], err=True)).strip()
        return answer or None

    made = make(workspace, asked, ask)
    write_text(workspace, made.text)
    if as_json:
        print_json(_as_json(made))
        return
    for line in _lines(made):
        err.print(line, markup=False)


def _columns(given: Sequence[str]) -> dict[str, str]:
    columns = dict(each.partition("=")[::2] for each in given)
    if wrong := [each for each in given if each.partition("=")[0] not in ("text", "label") or not each.partition("=")[2]]:
        raise ParamsError(f"--column {wrong[0]}: write text=NAME or label=NAME, with the name of a column")
    return columns


def _as_json(made: Made) -> dict[str, object]:
    copy = None if made.copy is None else f"data/{made.copy.name}"
    values = made.draft.values()
    return {"params": values, "copy": copy, "notes": made.notes, "warnings": made.draft.warnings, "rows": made.rows.rows}


def _lines(made: Made) -> list[str]:
    from tasks.drafting.table import counts_in_words

    rows, rounds = made.rows, made.draft.values()["rounds"]
    sizes = ", ".join(f"{name} {round_['ratio']:g}x smaller" for name, round_ in rounds.items())
    return [
        f"{rows.total:,} rows, {len(rows.rows)} classes: {counts_in_words(rows.rows)}",
        *(f"note: {note}" for note in made.notes),
        *([f"a copy that a run reads: data/{made.copy.name}"] if made.copy else []),
        *(f"warning: {warning}" for warning in made.draft.warnings),
        f"params.yaml: written, with a reason beside each value ({sizes}); `compactlm undo` takes it back",
        "next: compactlm shapes, compactlm check, compactlm run",
    ]
