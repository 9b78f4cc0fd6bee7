"""Charts as inline SVG strings, coloured by the page's style sheet so that they follow dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tasks.report.parts import count, milliseconds, share, text

Scale = Callable[[float], float]
_LARGEST_BUBBLE: Final = 13.0
_SMALLEST_BUBBLE: Final = 3.5
_LABEL_WIDTH: Final = 86  # pixels that a two-line label takes


@dataclass(frozen=True)
class Point:
    """One model of the front: parameters, accuracy with interval, latency (None: not measured), int8 accuracy."""

    name: str
    params: float
    accuracy: float
    low: float
    high: float
    latency_ms: float | None
    int8: tuple[float, float, float] | None
    kind: str  # teacher, round, or chosen


def front(points: Sequence[Point], line: tuple[str, float] | None, width: int, set_name: str) -> str:
    """Return the front: parameters (log) against accuracy, bubbles by latency, `line` a rival without parameters."""
    height, left, right, top, bottom = 400, 46, 22, 44, 48
    values = [end for p in points for end in _ends(p)]
    values += [line[1]] if line else []
    low, high = min(values), max(values)
    pad = max(0.005, 0.08 * (high - low))
    y, ticks = _linear(low - pad, high + pad, height - bottom, top)
    logs = [math.log10(p.params) for p in points]
    margin = max(0.12, (max(logs) - min(logs)) * 0.7 * _LABEL_WIDTH / (width - left - right))
    start, end = min(logs) - margin, max(logs) + margin

    def x(params: float) -> float:
        return left + (math.log10(params) - start) / (end - start) * (width - left - right)

    parts = [_y_axis(ticks, y, left, width - right, share)]
    parts += [_x_tick(x(p), height - bottom, count(p)) for p in _log_ticks(10**start, 10**end, 4 if width < 500 else 9)]
    parts.append(
        f'<text class="axis" x="{(left + width - right) / 2:.1f}" y="{height - 8}" text-anchor="middle">'
        "parameters, log scale</text>"
    )
    parts.append(f'<text class="axis" x="4" y="16">accuracy on {text(set_name)}</text>')
    if line:
        parts.append(
            f'<line class="rival" x1="{left}" x2="{width - right}" y1="{y(line[1]):.1f}" y2="{y(line[1]):.1f}"/>'
        )
        # Above the plot: inside it, in a narrow window, a model's label can lie where the line runs.
        parts.append(
            f'<text class="label muted" x="{width - right}" y="16" text-anchor="end">'
            f"\N{EN DASH} \N{EN DASH} {text(line[0])} {share(line[1])}</text>"
        )
    longest = max([p.latency_ms or 0.0 for p in points] + [1e-9])
    placed: list[tuple[float, bool]] = []
    for p in sorted(points, key=lambda p: p.params):
        parts.append(_bubble(p, x(p.params), y, longest))
        below = bool(placed) and x(p.params) - placed[-1][0] < _LABEL_WIDTH and not placed[-1][1]
        placed.append((x(p.params), below))
        parts.append(_name(p, x(p.params), y(_ends(p)[0]) + 16 if below else y(_ends(p)[1]) - 21))
    words = "; ".join(_in_words(p) for p in points) + (f"; {line[0]}: {share(line[1])}" if line else "")
    return _svg(width, height, f"Accuracy on {set_name} against parameters", words, parts)


def curve(
    name: str,
    loss: Sequence[tuple[float, float]],
    measured: Sequence[tuple[float, float]],
    metric: str = "validation accuracy",
    best_of: Callable[[Iterable[float]], float] = max,
) -> str:
    """Return one model's training curves: loss a step above, what was measured at each checkpoint below."""
    width, left, right, last = 280, 42, 36, max([step for step, _ in (*loss, *measured)] + [1.0])

    def x(step: float) -> float:
        return left + step / last * (width - left - right)

    parts = []
    for label, series, top, bottom, dots in (("loss", loss, 26, 104, False), (metric, measured, 136, 204, True)):
        parts.append(f'<text class="axis" x="4" y="{top - 10}">{label}</text>')
        if not series:
            parts.append(f'<text class="label muted" x="{left}" y="{(top + bottom) // 2}">none: taken as it is</text>')
            continue
        values = [value for _, value in series]
        pad = 0.1 * (max(values) - min(values)) or 0.01
        y, ticks = _linear(min(values) - pad, max(values) + pad, bottom, top, most=4)
        parts.append(_y_axis(ticks, y, left, width - right, share if dots else lambda value: f"{value:g}"))
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in series)
        parts.append(f'<polyline class="trace{" dots" if dots else ""}" points="{path}"/>')
        parts += [f'<circle class="dot" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3"/>' for s, v in series if dots]
        end = series[-1]
        parts.append(f'<text class="label" x="{x(end[0]) + 5:.1f}" y="{y(end[1]) + 4:.1f}">{end[1]:.3f}</text>')
    parts.append(_x_tick(x(0), 208, "0") + _x_tick(x(last), 208, f"{last:,.0f} steps"))
    best = f", best {metric} {share(best_of(v for _, v in measured))}" if measured else ""
    return _svg(width, 232, f"Training of {name}", f"{last:.0f} steps{best}", parts)


def thinned(series: Sequence[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """Return at most `most` points, each the mean of a run of neighbours; short series stay as they are."""
    run = math.ceil(len(series) / most) if len(series) > most else 1
    chunks = [series[i : i + run] for i in range(0, len(series), run)]
    return [(sum(s for s, _ in c) / len(c), sum(v for _, v in c) / len(c)) for c in chunks]


def _bubble(p: Point, x: float, y: Scale, longest: float) -> str:
    radius = max(_SMALLEST_BUBBLE, _LARGEST_BUBBLE * math.sqrt((p.latency_ms or 0.0) / longest))
    parts = [
        f"<title>{text(_in_words(p))}</title>",
        _whisker(x, y(p.low), y(p.high)),
        f'<circle cx="{x:.1f}" cy="{y(p.accuracy):.1f}" r="{radius:.1f}"/>',
    ]
    if p.int8:
        value, low, high = p.int8
        aside = x + max(radius, 5) + 7
        parts.append(_whisker(aside, y(low), y(high)))
        parts.append(f'<path class="int8" d="M{aside:.1f} {y(value) - 4.5:.1f}l4.5 4.5-4.5 4.5-4.5-4.5z"/>')
    return f'<g class="{p.kind}">{"".join(parts)}</g>'


def _ends(p: Point) -> tuple[float, float]:
    """Return the lowest and the highest end of a model's whiskers."""
    values = [p.low, p.high, *(p.int8[1:] if p.int8 else ())]
    return min(values), max(values)


def _whisker(x: float, low: float, high: float) -> str:
    return f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"/>'


def _name(p: Point, x: float, y: float) -> str:
    tail = f" · {milliseconds(p.latency_ms)}" if p.latency_ms is not None else ""
    return (
        f'<text class="label {p.kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">'
        f'<tspan class="name">{text(p.name)}</tspan>'
        f'<tspan x="{x:.1f}" dy="13">{count(p.params)}{tail}</tspan></text>'
    )


def _in_words(p: Point) -> str:
    latency = f", {milliseconds(p.latency_ms)}" if p.latency_ms is not None else ""
    int8 = f", int8 {share(p.int8[0])}" if p.int8 else ""
    accuracy = f"{share(p.accuracy)} ({share(p.low)} to {share(p.high)})"
    return f"{p.name}: {count(p.params)} parameters, {accuracy}{latency}{int8}"


def _linear(low: float, high: float, bottom: float, top: float, most: int = 6) -> tuple[Scale, list[float]]:
    """Return a scale from values to pixels and round values to mark on it."""
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [round(tick * step, 10) for tick in range(first, last + 1)]
    return lambda value: bottom - (value - low) / (high - low) * (bottom - top), ticks


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers between low and high: 1, 2, 5 times powers of ten, fewer if there are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for units in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [unit * 10.0**power for power in powers for unit in units if low <= unit * 10.0**power <= high]
        if len(ticks) <= most:
            break
    return ticks


def _y_axis(ticks: Sequence[float], y: Scale, left: float, right: float, words: Callable[[float], str]) -> str:
    return "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{words(tick)}</text>'
        for tick in ticks
    )


def _x_tick(x: float, y: float, words: str) -> str:
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 5}"/>'
        f'<text class="tick" x="{x:.1f}" y="{y + 18}" text-anchor="middle">{words}</text>'
    )


def _svg(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(title)}. {text(description)}">'
        f"<title>{text(title)}</title>{body}</svg>\n"
    )
