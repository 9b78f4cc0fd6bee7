"""Small parts of the report: escaped text, numbers as people write them, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NOTHING = "\N{EN DASH}"  # in a cell without a value


def text(value: object) -> str:
    """Return `value` safe inside HTML and its attributes."""
    return escape(str(value), quote=True)


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


def interval(value: Mapping[str, float] | None) -> str:
    """Return the HTML of a value with its interval on a smaller line."""
    if value is None:
        return NOTHING
    return f"{share(value['value'])}<small>{share(value['low'])}\N{EN DASH}{share(value['high'])}</small>"


def value_of(place: Mapping[str, Any] | None, *keys: str) -> Any:
    """Return what lies below `keys`, or None where one is missing."""
    for key in keys:
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return place


def ratio(one: float | None, other: float | None) -> float | None:
    """Return one / other, or None where that says nothing."""
    return one / other if one is not None and other else None


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1) -> str:
    """Return a table that scrolls sideways in its own box; cells are HTML, columns from `numbers_from` are numbers.

    A row of one cell is a heading across all columns.
    """
    head = "".join(f'<th scope="col"{_numeric(i, numbers_from)}>{cell}</th>' for i, cell in enumerate(header))
    body = "".join(_row(row, len(header), numbers_from) for row in rows)
    return (
        f'<p class="note">{text(caption)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}">'
        f'<table aria-label="{text(caption)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'
    )


def _row(row: Sequence[str], columns: int, numbers_from: int) -> str:
    if len(row) == 1:
        return f'<tr class="group"><th colspan="{columns}" scope="colgroup">{row[0]}</th></tr>'
    cells = "".join(f"<td{_numeric(i, numbers_from)}>{cell}</td>" for i, cell in enumerate(row) if i)
    return f'<tr><th scope="row">{row[0]}</th>{cells}</tr>'


def _numeric(column: int, numbers_from: int) -> str:
    return ' class="n"' if column >= numbers_from else ""


def verdict_mark(verdict: str) -> str:
    """Return the HTML of a verdict or result: a sign and the word, so that colour is not all that tells."""
    sign = {"pass": "✓", "fail": "✕", "hold": "?"}.get(verdict, "")
    return f'<span class="mark {text(verdict)}"><span aria-hidden="true">{sign}</span> {text(verdict)}</span>'


def rule_list(rules: Sequence[Mapping[str, Any]]) -> str:
    """Return the rules of a verdict as a list, each with its mark and sentence."""
    return f'<ul class="rules">{"".join(map(_rule, rules))}</ul>'


def _rule(rule: Mapping[str, Any]) -> str:
    warning = " <small>(a warning: does not block)</small>" if rule["severity"] == "warn" else ""
    return f"<li>{verdict_mark(rule['result'])}<span>{text(rule['sentence'])}{warning}</span></li>"


def digest(value: str | None) -> str:
    """Return the HTML of a sha256, which may break anywhere."""
    return f"<code>{text(value)}</code>" if value else NOTHING


def zeros(cost: Mapping[str, Any]) -> str:
    """Return how many weights of a masked model are zero, with both denominators; a dash where none was masked."""
    found = cost.get("sparsity")
    if found is None:
        return NOTHING
    return (
        f"{100 * found['sparsity_of_masked']:.1f}% of {found['weights_masked']:,} in layers"
        f"<small>{100 * found['sparsity_of_total']:.1f}% of all parameters; no faster in a dense runtime</small>"
    )
