"""The page of an audit: one HTML file that asks for nothing else, with the lineage drawn as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from tasks.report.page import document
from tasks.report.parts import Cell, Table, filled

Report = Mapping[str, Any]
Edge = tuple[str, str]

WIDTH: Final = 190
HEIGHT: Final = 46
GAP_X: Final = 26
GAP_Y: Final = 34
HEADER: Final = ("result", "check", "of", "says")
WORDS: Final = {
    "PASS": "Nothing was changed: every check passes.",
    "FAIL": "The lineage is broken: see what failed below.",
    "UNKNOWN": "Nothing wrong was found, but not everything could be checked.",
}


def render(report: Report) -> str:
    """Return the whole page of a report of `tasks.audit.walk`."""
    name = f"{report['model']}/{report['version']}"
    body = filled(
        "audit.html.j2",
        report=report,
        name=name,
        aliases=" ".join(f"@{alias}" for alias in report["aliases"]),
        words=WORDS[report["result"]],
        megabytes=f"{report['bytes'] / 1e6:,.1f}",
        problems=_problems(report["checks"]),
        checks=_checks(report["checks"]),
        graph=graph(report),
    )
    return document(f"Audit of {name}: {report['result']}", [body])


def _problems(checks: Sequence[Report]) -> Table:
    wrong = [check for check in checks if check["result"] != "PASS"]
    rows = [
        [*_words_of(check), *[Cell(str(check[key]), kind="code") for key in ("expected", "found")]]
        for check in sorted(wrong, key=lambda check: str(check["result"]))
    ]
    header = [*HEADER, "expected", "found"]
    return Table("Checks that fail or cannot be decided", header, rows, numbers_from=len(header))


def _checks(checks: Sequence[Report]) -> Table:
    return Table("Every check, and of what", HEADER, [*map(_words_of, checks)], numbers_from=len(HEADER))


def _words_of(check: Report) -> list[str | Cell]:
    return [Cell(check["result"], kind="mark"), check["name"], Cell(check["subject"], kind="code"), check["sentence"]]


def graph(report: Report) -> Markup:
    """Return the lineage as SVG: a box a stage, coloured by its result, data at the top and the version at the bottom."""
    stages = {stage["name"]: stage for stage in report["stages"]}
    edges = reduced([(a, b) for a, b in report["edges"]])
    rows = _rows(list(stages), edges)
    width = max(map(len, rows), default=0) * (WIDTH + GAP_X) + GAP_X
    places: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) // 2
        for column, name in enumerate(row):
            places[name] = (left + column * (WIDTH + GAP_X), GAP_Y + number * (HEIGHT + GAP_Y))
    return filled(
        "lineage.svg.j2",
        width=width,
        height=GAP_Y + len(rows) * (HEIGHT + GAP_Y),
        box={"width": WIDTH, "height": HEIGHT},
        lines=[_line(places[a], places[b]) for a, b in edges],
        boxes=[(*places[name], stage) for name, stage in stages.items()],
    )


def reduced(edges: Sequence[Edge]) -> list[Edge]:
    """Return the edges without those that a longer way implies; the graph has no cycles."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def leads(start: str, end: str) -> bool:
        return end in after.get(start, ()) or any(leads(each, end) for each in after.get(start, ()))

    return [(a, b) for a, b in edges if not any(leads(each, b) for each in after[a] - {b})]


def _rows(names: Sequence[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Return the names in rows, each below all that it rests on; `names` are in an order in which they can run."""
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = 1 + max((depth[a] for a, b in edges if b == name), default=-1)
    return [[name for name in names if depth[name] == row] for row in range(max(depth.values(), default=-1) + 1)]


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH // 2, start[1] + HEIGHT, end[0] + WIDTH // 2, end[1]
    bend = round(GAP_Y * 0.6)
    return f"M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"
