"""Small parts of every page: the templates, numbers as people write them, tables as values."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES: Final = Path(__file__).parent / "templates"
NOTHING: Final = "\N{EN DASH}"  # in a cell without a value


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it says and in small print below it; a verdict, code, or beside it a bar of so many percent."""

    text: str
    small: str = ""
    kind: str = ""  # mark or code
    bar: float | None = None


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """A table: columns from `numbers_from` are numbers; a row of one cell is a heading across all columns."""

    caption: str
    header: Row
    rows: Sequence[Row]
    numbers_from: int = 1


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["px"] = lambda place: f"{place:.1f}"
    return made


def filled(template: str, **values: Any) -> Markup:
    """Return a template filled with values, which are escaped unless they are filled templates: the same for the same values."""
    return Markup(_templates().get_template(template).render(values))


def tables_section(title: str, *tables: Table) -> Markup:
    """Return a section of tables."""
    return filled("tables.html.j2", title=title, tables=tables)


def count(number: float | None) -> str:
    """Return a large number with three digits and its unit: 22.7 M."""
    if number is None:
        return NOTHING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}" if number / size < 999.5 else f"{number / size:.0f} {unit}"
    return f"{number:g}"


def size(number: float | None) -> str:
    """Return bytes with three digits: 91.6 MB."""
    return NOTHING if number is None else f"{count(number)}B"


def milliseconds(number: float | None) -> str:
    """Return a time with its unit: 16.3 ms."""
    return NOTHING if number is None else f"{number:.3g} ms" if number < 999.5 else f"{number:,.0f} ms"


def share(number: float | None) -> str:
    """Return a share with three decimals: 0.831."""
    return NOTHING if number is None else f"{number:.3f}"


def percent(number: float | None) -> str:
    """Return a ratio in percent: 99.3 %."""
    return NOTHING if number is None else f"{100 * number:.1f}\N{NO-BREAK SPACE}%"


def interval(value: Mapping[str, float] | None) -> str | Cell:
    """Return a value with its interval in small print."""
    if value is None:
        return NOTHING
    return Cell(share(value["value"]), f"{share(value['low'])}\N{EN DASH}{share(value['high'])}")
