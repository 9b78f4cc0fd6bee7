"""The page of an audit: one HTML file that asks for nothing else, with the lineage drawn as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

Report = Mapping[str, Any]
Edge = tuple[str, str]

WIDTH: Final = 190
HEIGHT: Final = 46
GAP_X: Final = 26
GAP_Y: Final = 34
WORDS: Final = {
    "PASS": "Nothing was changed: every check passes.",
    "FAIL": "The lineage is broken: see what failed below.",
    "UNKNOWN": "Nothing wrong was found, but not everything could be checked.",
}
STYLE: Final = """
:root{color-scheme:light dark;--paper:#fcfcfa;--ink:#1d2126;--soft:#5d6670;--rule:#dcdfe2;--faint:#f1f2f0;
--pass:#1a7a43;--fail:#b3261e;--unknown:#8a5a00}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e8ea;--soft:#9aa4ae;--rule:#30363c;--faint:#1c2024;
--pass:#63c98c;--fail:#ff8a80;--unknown:#e7b65c}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:36px 24px 72px}
h1{font-size:1.7rem;line-height:1.25;margin:.1em 0 .3em}h2{font-size:1.2rem;margin:44px 0 8px}
p{margin:.3em 0 1em;max-width:72ch}.soft{color:var(--soft);font-size:.875rem}
.pass{color:var(--pass)}.fail{color:var(--fail)}.unknown{color:var(--unknown)}.mark{font-weight:650}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;border-bottom:1px solid var(--rule);font-weight:400}
thead th{font-weight:650;border-bottom-color:var(--ink)}
code{font:.8rem/1.4 ui-monospace,Menlo,monospace;overflow-wrap:anywhere}
svg{display:block;margin:0 auto;max-width:none;font:12px system-ui,sans-serif}
svg rect{fill:var(--faint);stroke:currentColor;stroke-width:1.6}
svg text{fill:var(--ink)}svg .small{fill:var(--soft);font-size:10.5px}svg path{fill:none;stroke:var(--soft);stroke-width:1.1}
svg marker path{fill:var(--soft);stroke:none}
"""


def render(report: Report) -> str:
    """Return the whole page of a report of `tasks.audit.walk`."""
    name = f"{report['model']}/{report['version']}"
    aliases = " ".join(f"@{alias}" for alias in report["aliases"])
    facts = (
        f"{report['counts']['PASS']} checks pass, {report['counts']['FAIL']} fail, {report['counts']['UNKNOWN']} cannot be "
        f"decided. {report['files']} files, {report['bytes'] / 1e6:,.1f} MB were read and hashed."
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>Audit of {_text(name)}: {_text(report["result"])}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n"
        f'<p class="soft">{_text(name)} {_text(aliases)} · round {_text(report["round"])} · audit</p>\n'
        f"<h1>{_mark(report['result'])} {_text(WORDS[report['result']])}</h1>\n<p>{_text(facts)}</p>\n"
        f'<p class="soft">weights <code>{_text(report["model_sha256"])}</code><br>'
        f"Merkle root of the receipts <code>{_text(report['receipts_root'])}</code></p>\n"
        f"{_problems(report['checks'])}<h2>Lineage</h2>\n"
        f'<div class="scroll">{graph(report)}</div>\n<h2>All checks</h2>\n{_summary(report["checks"])}</main></body></html>\n'
    )


def _problems(checks: Sequence[Report]) -> str:
    rows = [
        f"<tr><td>{_mark(one['result'])}</td><td>{_text(one['name'])}</td><td><code>{_text(one['subject'])}</code><br>"
        f"{_text(one['sentence'])}</td><td><code>{_text(one['expected'])}</code></td><td><code>{_text(one['found'])}</code></td></tr>"
        for one in sorted(checks, key=lambda one: str(one["result"]))
        if one["result"] != "PASS"
    ]
    if not rows:
        return ""
    head = "<tr><th>result</th><th>check</th><th>what</th><th>expected</th><th>found</th></tr>"
    return f'<h2>What is wrong</h2><div class="scroll"><table><thead>{head}</thead>{"".join(rows)}</table></div>\n'


def _summary(checks: Sequence[Report]) -> str:
    rows = "".join(
        f"<tr><td>{_mark(one['result'])}</td><td>{_text(one['name'])}</td><td><code>{_text(one['subject'])}</code></td>"
        f"<td>{_text(one['sentence'])}</td></tr>"
        for one in checks
    )
    head = "<tr><th>result</th><th>check</th><th>of</th><th>says</th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead>{rows}</table></div>'


def graph(report: Report) -> str:
    """Return the lineage as SVG: a box a stage, coloured by its result, data at the top and the version at the bottom."""
    stages = {one["name"]: one for one in report["stages"]}
    if not stages:
        return "<p>No receipt leads to this version, so there is nothing to draw.</p>"
    edges = reduced([(a, b) for a, b in report["edges"]])
    rows = _rows(list(stages), edges)
    places: dict[str, tuple[float, float]] = {}
    width = max(len(row) for row in rows) * (WIDTH + GAP_X) + GAP_X
    for number, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for column, name in enumerate(row):
            places[name] = (left + column * (WIDTH + GAP_X), GAP_Y + number * (HEIGHT + GAP_Y))
    lines = "".join(_line(places[a], places[b]) for a, b in edges)
    boxes = "".join(_box(places[name], one) for name, one in stages.items())
    height = GAP_Y + len(rows) * (HEIGHT + GAP_Y)
    return (
        f'<svg role="img" aria-label="lineage" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{lines}{boxes}</svg>'
    )


def reduced(edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges without those that a longer way implies; the graph has no cycles."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def leads(start: str, end: str) -> bool:
        return end in after.get(start, ()) or any(leads(one, end) for one in after.get(start, ()))

    return [(a, b) for a, b in edges if not any(leads(one, b) for one in after[a] - {b})]


def _rows(names: Sequence[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Return the names in rows, each below all that it rests on; `names` are in an order in which they can run."""
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = 1 + max((depth[a] for a, b in edges if b == name), default=-1)
    return [[name for name in names if depth[name] == row] for row in range(max(depth.values()) + 1)]


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH / 2, start[1] + HEIGHT, end[0] + WIDTH / 2, end[1]
    bend = GAP_Y * 0.6
    curve = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    return f'<path marker-end="url(#tip)" d="{curve}"/>'


def _box(place: tuple[float, float], stage: Report) -> str:
    x, y = place
    weights = next(iter(stage["outputs"].values()), "")
    what = "\n".join(f"{path} {sha256}" for path, sha256 in stage["outputs"].items())
    return (
        f'<g class="{_text(str(stage["result"]).lower())}"><title>{_text(what)}</title>'
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + 10:.0f}" y="{y + 19:.0f}">{_text(stage["name"])}</text>'
        f'<text class="small" x="{x + 10:.0f}" y="{y + 36:.0f}">{_text(stage["result"])} · {_text(weights[:12])}</text></g>'
    )


def _mark(result: str) -> str:
    return f'<span class="mark {result.lower()}">{_text(result)}</span>'


def _text(value: object) -> str:
    return escape(str(value), quote=True)
