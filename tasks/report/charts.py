"""Charts as inline SVG, coloured by the page's style sheet so that they follow dark mode: here is where each thing stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from tasks.report.parts import count, filled, milliseconds, share

Scale = Callable[[float], float]
Series = Sequence[tuple[float, float]]
LARGEST_BUBBLE: Final = 13.0
SMALLEST_BUBBLE: Final = 3.5
LABEL_WIDTH: Final = 86  # pixels that a two-line label takes


@dataclass(frozen=True)
class Point:
    """One model of the front: parameters, accuracy with interval, latency (None: not measured), int8 accuracy."""

    name: str
    params: float
    accuracy: Mapping[str, float]
    latency_ms: float | None
    int8: Mapping[str, float] | None
    kind: str  # teacher, round, or chosen

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest end of the whiskers."""
        values = [each[end] for each in (self.accuracy, self.int8) if each for end in ("low", "high")]
        return min(values), max(values)

    @property
    def label(self) -> str:
        """Return parameters and latency in short."""
        return count(self.params) + (f" · {milliseconds(self.latency_ms)}" if self.latency_ms is not None else "")

    @property
    def in_words(self) -> str:
        """Return all of it in a line."""
        latency = f", {milliseconds(self.latency_ms)}" if self.latency_ms is not None else ""
        int8 = f", int8 {share(self.int8['value'])}" if self.int8 else ""
        value, low, high = (share(self.accuracy[key]) for key in ("value", "low", "high"))
        return f"{self.name}: {count(self.params)} parameters, {value} ({low} to {high}){latency}{int8}"


def front(points: Sequence[Point], line: tuple[str, float] | None, width: int, set_name: str) -> Markup:
    """Return the front: parameters (log) against accuracy, bubbles by latency, `line` a rival without parameters."""
    left, right, top, bottom = 46, width - 22, 44, 352
    values = [end for p in points for end in p.ends] + ([line[1]] if line else [])
    pad = max(0.005, 0.08 * (max(values) - min(values)))
    y, ticks = linear(min(values) - pad, max(values) + pad, bottom, top)
    logs = [math.log10(p.params) for p in points]
    margin = max(0.12, (max(logs) - min(logs)) * 0.7 * LABEL_WIDTH / (right - left))
    start, end = min(logs) - margin, max(logs) + margin

    def x(params: float) -> float:
        return left + (math.log10(params) - start) / (end - start) * (right - left)

    longest = max([p.latency_ms or 0.0 for p in points] + [1e-9])
    return filled(
        "front.svg.j2",
        width=width,
        left=left,
        right=right,
        bottom=bottom,
        set_name=set_name,
        words="; ".join([p.in_words for p in points] + ([f"{line[0]}: {share(line[1])}"] if line else [])),
        x=x,
        y=y,
        y_ticks=[(y(tick), share(tick)) for tick in ticks],
        x_ticks=[(x(tick), count(tick)) for tick in _log_ticks(10**start, 10**end, 4 if width < 500 else 9)],
        rival=(line[1], f"{line[0]} {share(line[1])}") if line else None,
        bubbles=[
            (p, max(SMALLEST_BUBBLE, LARGEST_BUBBLE * math.sqrt((p.latency_ms or 0.0) / longest)), label_y)
            for p, label_y in _labelled(points, x, y)
        ],
    )


def _labelled(points: Sequence[Point], x: Scale, y: Scale) -> Iterator[tuple[Point, float]]:
    """Yield the points from left to right with the height of their label: below a model where it would hit its neighbour's."""
    last, was_below = -math.inf, False
    for p in sorted(points, key=lambda p: p.params):
        was_below = x(p.params) - last < LABEL_WIDTH and not was_below
        last = x(p.params)
        yield p, y(p.ends[0]) + 16 if was_below else y(p.ends[1]) - 21


def curve(
    name: str,
    loss: Series,
    measured: Series,
    metric: str = "validation accuracy",
    best_of: Callable[[Iterable[float]], float] = max,
) -> Markup:
    """Return one model's training curves: loss a step above, what was measured at each checkpoint below."""
    left, right, last = 42, 244, max([step for step, _ in (*loss, *measured)] + [1.0])
    panels = []
    for label, series, top, bottom in (("loss", loss, 26, 104), (metric, measured, 136, 204)):
        panel: dict[str, Any] = {"label": label, "top": top, "bottom": bottom, "points": [], "dots": series is measured}
        if series:
            values = [value for _, value in series]
            pad = 0.1 * (max(values) - min(values)) or 0.01
            y, ticks = linear(min(values) - pad, max(values) + pad, bottom, top, most=4)
            form = share if panel["dots"] else "{:g}".format
            panel["points"] = [(left + step / last * (right - left), y(value)) for step, value in series]
            panel |= {"y_ticks": [(y(tick), form(tick)) for tick in ticks], "end": f"{values[-1]:.3f}"}
        panels.append(panel)
    best = f", best {metric} {share(best_of(v for _, v in measured))}" if measured else ""
    x_ticks = [(left, "0"), (right, f"{last:,.0f} steps")]
    words = f"{last:.0f} steps{best}"
    return filled("curve.svg.j2", name=name, words=words, left=left, right=right, panels=panels, x_ticks=x_ticks)


def thinned(series: Series, most: int = 120) -> list[tuple[float, float]]:
    """Return at most `most` points, each the mean of a run of neighbours; short series stay as they are."""
    run = math.ceil(len(series) / most) if len(series) > most else 1
    chunks = [series[i : i + run] for i in range(0, len(series), run)]
    return [(sum(s for s, _ in c) / len(c), sum(v for _, v in c) / len(c)) for c in chunks]


def linear(low: float, high: float, bottom: float, top: float, most: int = 6) -> tuple[Scale, list[float]]:
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
