"""Curves of several students against steps, as one SVG file that stands alone in a page of docs/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from tasks.report.charts import linear

Curve = Sequence[tuple[float, float]]
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#7f7f7f")  # told apart by the colour-blind (Okabe and Ito)
STYLE: Final = (
    "<style>svg{background:#fff;font:12px sans-serif}.grid{stroke:#ddd}.tick,.axis{fill:#555}"
    ".trace{fill:none;stroke-width:2}</style>"
)
WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 720, 58, 16, 190, 56, 24


def curves(panels: Mapping[str, Mapping[str, Curve]], title: str) -> str:
    """Return an SVG of one panel a metric, each with one line a student: metric -> student -> (step, value)."""
    names = list(next(iter(panels.values())))
    last = max(step for lines in panels.values() for line in lines.values() for step, _ in line)
    parts = [STYLE]

    def x(step: float) -> float:
        return LEFT + step / last * (WIDTH - LEFT - RIGHT)

    for place, (metric, lines) in enumerate(panels.items()):
        top = TOP + place * (PANEL + GAP)
        bottom = top + PANEL
        values = [value for line in lines.values() for _, value in line]
        pad = 0.05 * (max(values) - min(values)) or 0.01
        y, ticks = linear(min(values) - pad, max(values) + pad, bottom, top)
        parts.append(f'<text class="axis" x="4" y="{top - 9}">{escape(metric)}</text>')
        parts += [
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
            for tick in ticks
        ]
        for name, colour in zip(names, COLOURS, strict=False):
            points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in lines[name])
            parts.append(f'<polyline class="trace" stroke="{colour}" points="{points}"/>')
        parts += [
            f'<line class="grid" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
            f'<text class="tick" x="{x(step):.1f}" y="{bottom + 18}" text-anchor="middle">{step:,.0f}</text>'
            for step in (0, last / 2, last)
        ]
    height = TOP + len(panels) * (PANEL + GAP)
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        row = height + 16 * place
        parts.append(f'<rect x="{LEFT}" y="{row - 9}" width="18" height="4" fill="{colour}"/>')
        parts.append(f'<text class="axis" x="{LEFT + 26}" y="{row - 3}">{escape(name)}</text>')
    words = escape(f"{title}. {'; '.join(panels)}", quote=True)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 16 * len(names)}" role="img"'
    return f'{start} aria-label="{words}"><title>{escape(title)}</title>{"".join(parts)}</svg>\n'
