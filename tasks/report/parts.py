"""Small parts of the report: escaped text, numbers as people write them, tables.

The style sheet of the report: one column of text, wide tables in their own scroll box, light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

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


STYLE: Final = """
:root{color-scheme:light dark;--paper:#fcfcfa;--ink:#1d2126;--soft:#5d6670;--rule:#dcdfe2;--faint:#f1f2f0;
--accent:#1f5fbf;--teacher:#6b5d4d;--pass:#1a7a43;--fail:#b3261e;--hold:#8a5a00}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e8ea;--soft:#9aa4ae;--rule:#30363c;--faint:#1c2024;
--accent:#7fb0ff;--teacher:#cbb594;--pass:#63c98c;--fail:#ff8a80;--hold:#e7b65c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:clamp(1.45rem,1rem + 1.9vw,2.3rem);line-height:1.2;letter-spacing:-.012em;margin:.1em 0 .5em;
max-width:34ch;text-wrap:balance}
h2{font-size:1.25rem;line-height:1.3;margin:56px 0 6px;padding-top:18px;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:22px 0 4px}
p{margin:.4em 0 1em;max-width:68ch}
.kicker,.note,figcaption{color:var(--soft);font-size:.875rem}
.kicker{margin:0}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:18px 28px;margin:26px 0 0;padding:0}
.facts div{border-top:2px solid var(--ink);padding-top:8px}
.facts dt{font-size:.875rem;color:var(--soft)}
.facts dd{margin:0;font-size:1.55rem;font-weight:650;letter-spacing:-.01em;line-height:1.25}
.facts dd small{display:block;font-size:.8125rem;font-weight:400;letter-spacing:0;color:var(--soft)}
figure{margin:14px 0 0}
figcaption{margin-top:6px;max-width:78ch}
svg{display:block;width:100%;height:auto;overflow:visible;font:12px system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums}
.narrow{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:22px 28px}
.panels h3{margin:6px 0 2px}
.grid{stroke:var(--rule);stroke-width:1}
.tick,.axis,.muted{fill:var(--soft)}
.label{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.label .name{font-weight:650}
.label.chosen .name{fill:var(--accent)}
.rival{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4}
.whisker{fill:none;stroke:currentColor;stroke-width:1.3;opacity:.75}
g.teacher{color:var(--teacher)}g.round,g.chosen{color:var(--accent)}
g circle{fill:currentColor;fill-opacity:.22;stroke:currentColor;stroke-width:1.6}
g.chosen circle{fill-opacity:.85}
.int8{fill:var(--paper);stroke:currentColor;stroke-width:1.5}
.trace{fill:none;stroke:var(--accent);stroke-width:1.6;stroke-linejoin:round}
.trace.dots{opacity:.55}.dot{fill:var(--accent)}
.scroll{overflow-x:auto;margin:6px 0 4px}
table{border-collapse:collapse;width:100%;font-size:.875rem;line-height:1.35}
.note{max-width:78ch;margin:.4em 0 .2em}dl+.note,.scroll+.note{margin-top:30px}
h3 .note{font-weight:400;margin-left:.4em}
th[scope=row]{position:sticky;left:0;background:var(--paper)}
th,td{text-align:left;vertical-align:top;padding:7px 14px 7px 0;border-bottom:1px solid var(--rule);font-weight:400}
thead th{font-weight:650;vertical-align:bottom;border-bottom-color:var(--ink)}
th.n,td.n{text-align:right;padding:7px 0 7px 14px;white-space:nowrap}
thead th.n{white-space:normal}
td small,th small{display:block;color:var(--soft);font-size:.75rem}
tr.group th{padding-top:18px;font-weight:650;color:var(--soft)}
.mark{font-weight:650;white-space:nowrap}.pass{color:var(--pass)}.fail{color:var(--fail)}.hold{color:var(--hold)}
.rules{list-style:none;margin:0;padding:0}
.rules li{display:grid;grid-template-columns:4.6rem 1fr;gap:8px;padding:6px 0;border-bottom:1px solid var(--rule);
font-size:.9375rem}
.track{display:inline-block;width:5em;margin-left:10px;text-align:left}
.bar{display:inline-block;height:.62em;background:var(--fail);opacity:.75}
code{font:.8125rem/1.4 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
dl.origin{display:grid;grid-template-columns:minmax(7rem,max-content) minmax(0,1fr);gap:4px 20px;font-size:.875rem}
dl.origin dt{color:var(--soft)}dl.origin dd{margin:0}
@media (max-width:640px){main{padding:22px 16px 56px}.wide{display:none}.narrow{display:block}
h2{margin-top:42px}.facts{grid-template-columns:1fr 1fr;gap:14px 18px}.facts dd{font-size:1.3rem}
table{font-size:.8125rem}th,td{padding-right:8px}th.n,td.n{padding-left:8px}
td small,th small{font-size:.6875rem}
td.n small{white-space:normal;max-width:3.4rem;margin-left:auto}.track{display:none}}
@media print{main{max-width:none}.scroll{overflow:visible}}
"""
