"""Which shapes to time for a round that is to be so many times as fast as the teacher, and how fast they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tasks.measuring.latency import compare_latencies
from tasks.measuring.subject import Timing
from tasks.models.architectures import adapter_of
from tasks.models.checkpoint import classifier_from_config
from tasks.params.rounds import Round
from tasks.pruning.planner import Candidate, Size, Space, reachable, shapes_within
from tasks.pruning.planning import Config, Measure, space_of

TRIES: Final = 7  # steps of the bisection: of a range of 1 to 100 it leaves 4 %
WIDE: Final = 0.25  # below the budget, where a coarse space has no shape within 5 %

Clock = Callable[[dict[str, int]], Mapping[str, float]]


def measure_front(target: Round, config: Config, measure: Measure, clock: Clock) -> list[dict[str, float]]:
    """Return the shapes that were timed: sizes along the axes, `latency_ms` and `teacher_latency_ms`, in order of timing.

    Each is the shape that loses least for a budget of FLOPs; a bisection, on the logarithm of that budget, comes near to the
    largest one that is fast enough. `clock` times a shape.
    """
    assert target.speedup is not None
    space, flops = space_of(config, target.axes), partial(measure.flops, config)
    low, high = reachable(space, flops)
    timed: list[dict[str, float]] = []
    for _ in range(TRIES):
        middle = math.isqrt(low * high)
        best = _least_lost(space, flops, middle)
        if best is None:  # a gap in the space: there are shapes above it
            low = middle
            continue
        timing = clock(best.shape)
        timed.append({**best.shape, **{key: timing[key] for key in ("latency_ms", "teacher_latency_ms")}})
        if timing["teacher_latency_ms"] >= target.speedup * timing["latency_ms"]:
            low = middle
        else:
            high = middle
    return timed


def _least_lost(space: Space, flops: Size, budget: int) -> Candidate | None:
    return next(iter(shapes_within(space, flops, budget) or shapes_within(space, flops, budget, WIDE)), None)


def random_weights_clock(config: Config, teacher: Config, tokens: int, repeats: int) -> Clock:
    """Return a clock that times shapes of a parent of this config against the teacher; the weights are random, as time has no
    use for them: median milliseconds of one row of so many tokens, on one thread, both taking turns.
    """
    other = classifier_from_config(dict(teacher)).eval()

    def clock(shape: dict[str, int]) -> Mapping[str, float]:
        student = classifier_from_config(adapter_of(config).resized(config, shape)).eval()
        record = compare_latencies(student, other, {}, Timing([1], tokens, repeats))["torch"]["1"]
        return {"latency_ms": record["latency_ms_p50"], "teacher_latency_ms": record["teacher_latency_ms_p50"]}

    return clock
