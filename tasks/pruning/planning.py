"""The shape a round reaches: as params.yaml gives it, or solved for a budget within what the family can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.errors import ParamsError
from tasks.models.architectures import adapter_of
from tasks.models.causal_lm import count_parameters, flops_per_token
from tasks.params.causal_lm import CausalRound
from tasks.params.rounds import Round
from tasks.pruning.planner import (
    TOLERANCE,
    Candidate,
    Size,
    Space,
    lost,
    most_different,
    reachable,
    shapes_within,
    sizes_along,
)

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """What a budget is counted with: the teacher's config for `ratio`, the classes, and the tokens of `flops_per_example`."""

    teacher: Config
    classes: int
    tokens: int


def target_shape(where: str, target: Round, config: Config, measure: Measure) -> dict[str, int]:
    """Return the size along each axis that a round cuts a parent of this config to; ParamsError if none meets the budget."""
    if target.granularity != "structured":
        return dict(adapter_of(config).shape(config))
    if not target.budgets:
        return target.axes
    return candidates(where, target, config, measure)[0].shape


def possible_shapes(where: str, target: Round, config: Config, measure: Measure) -> list[dict[str, int]]:
    """Return the one shape of a round, or those that its `search` tries; the first is the least lost."""
    if target.search is None:
        return [target_shape(where, target, config, measure)]
    return [one.shape for one in searched_shapes(where, target, config, measure)]


def searched_shapes(where: str, target: Round, config: Config, measure: Measure) -> list[Candidate]:
    """Return the shapes that a round with `search` tries; the first is the least lost. ParamsError if there are too few.

    All have the vocabulary of the least lost one: it decides the tokens of the round, which are made once.
    """
    assert target.search is not None
    found = candidates(where, target, config, measure)
    alike = [one for one in found if one.shape["vocabulary"] == found[0].shape["vocabulary"]]
    if len(alike) < target.search.candidates:
        raise ParamsError(
            f"{where}.search.candidates: {target.search.candidates} are asked for, and {len(alike)} shapes meet the budget with "
            f"a vocabulary of {found[0].shape['vocabulary']}; ask for fewer, hold fewer axes, or give another vocabulary"
        )
    return most_different(alike, target.search.candidates)


def candidates(where: str, target: Round, config: Config, measure: Measure) -> list[Candidate]:
    """Return every shape within 5 % below the budget of a round, the one that keeps most of what matters first.

    Of `speedup` the shapes are those that were measured and are fast enough, and their size is the latency in microseconds.
    """
    ((name, _),) = target.budgets.items()
    if target.speedup is not None:
        return _fast_enough(where, target, config, measure)
    return _within(f"{where}.{name}", target.axes, config, *_budget(target, config, measure))


def causal_shape(where: str, target: CausalRound, config: Config, teacher: Config, tokens: int) -> dict[str, int]:
    """Return what `target_shape` does for a round of a language model; `tokens` are those of the block of `flops_per_token`."""
    if not target.budgets:
        return target.axes
    ((name, _),) = target.budgets.items()
    adapter = adapter_of(config)
    if target.flops_per_token is not None:
        return _within(
            f"{where}.{name}",
            target.axes,
            config,
            lambda shape: flops_per_token(adapter.resized(config, shape), tokens),
            target.flops_per_token,
        )[0].shape
    limit = target.params_total
    if limit is None:
        assert target.ratio is not None
        limit = int(count_parameters(teacher, adapter_of(teacher).shape(teacher))["total"] / target.ratio)
    found = _within(
        f"{where}.{name}", target.axes, config, lambda shape: count_parameters(config, shape)["total"], limit
    )
    return found[0].shape


def _within(where: str, axes: Mapping[str, int], config: Config, size: Size, budget: int) -> list[Candidate]:
    """Return the shapes within 5 % below a budget, with some axes held; ParamsError when there is none."""
    space = space_of(config, axes)
    found = shapes_within(space, size, budget) if space.hidden_heads and space.vocabulary and space.layers else []
    if not found:
        words = "no such shape fits the family"
        if space.hidden_heads and space.vocabulary and space.layers:
            words = "from {:,} to {:,} can be reached".format(*reachable(space, size))
        held = ", ".join(f"{axis} = {value}" for axis, value in axes.items()) or "no axis held"
        raise ParamsError(f"{where}: no shape within {TOLERANCE:.0%} below {budget:,} ({held}); {words} in one round")
    return found


def _fast_enough(where: str, target: Round, config: Config, measure: Measure) -> list[Candidate]:
    again = f"run: compactlm measure {where.rpartition('.')[2]}"
    measured, wanted = target.measured, target.speedup
    if measured is None or wanted is None:
        raise ParamsError(f"{where}.speedup: no shape is measured yet; {again}")
    if measured.tokens != measure.tokens:
        raise ParamsError(
            f"{where}.measured.tokens: measured with {measured.tokens} tokens, and evaluate.latency_tokens is {measure.tokens}; "
            f"{again}"
        )
    adapter = adapter_of(config)
    before = adapter.shape(config)
    fits = [
        one
        for one in measured.shapes
        if adapter.refusal(config, one.shape) is None
        and one.shape != before
        and all(one.shape[axis] <= before[axis] for axis in before)
        and target.axes.items() <= one.shape.items()
    ]
    found = [
        Candidate(one.shape, round(1000 * one.latency_ms), lost(before, one.shape))
        for one in fits
        if one.speedup >= wanted
    ]
    if not found:
        best = max((one.speedup for one in fits), default=0.0)
        raise ParamsError(
            f"{where}.speedup: {len(fits)} of {len(measured.shapes)} measured shapes fit the parent and the axes that are held; "
            f"the fastest of them is {best:.2f} times as fast as the teacher, not {wanted:g} times; ask for less, or {again}"
        )
    return sorted(found, key=lambda one: (one.loss, one.size))


def _budget(target: Round, config: Config, measure: Measure) -> tuple[Size, int]:
    adapter = adapter_of(config)
    if target.flops_per_example is not None:
        return (
            lambda shape: adapter.flops_per_example(adapter.resized(config, shape), measure.tokens, measure.classes),
            target.flops_per_example,
        )
    limit = target.params_total
    if limit is None:
        assert target.ratio is not None
        whole = adapter.count_parameters(measure.teacher, adapter.shape(measure.teacher), measure.classes)["total"]
        limit = int(whole / target.ratio)
    return lambda shape: adapter.count_parameters(config, shape, measure.classes)["total"], limit


def space_of(config: Config, held: Mapping[str, int]) -> Space:
    """Return the shapes that stock classes can hold of a parent of this config, with some axes held at a size."""
    adapter = adapter_of(config)
    before, head_size = adapter.shape(config), adapter.head_size(config)

    def fits(**sizes: int) -> bool:
        return adapter.refusal(config, {**before, **sizes}) is None

    def values(axis: str) -> list[int]:
        return [held[axis]] if axis in held else sizes_along(before[axis])

    every_head = [held["heads"]] if "heads" in held else list(range(1, before["heads"] + 1))
    widths = {*values("hidden"), *(head_size * heads for heads in every_head if "hidden" not in held)}
    pairs = [
        (hidden, heads)
        for hidden in sorted(width for width in widths if width <= before["hidden"])
        for heads in every_head
        if hidden % heads == 0 and fits(hidden=hidden, heads=heads)
    ]
    layers = [held["layers"]] if "layers" in held else list(range(1, before["layers"] + 1))
    return Space(
        before=before,
        hidden_heads=pairs,
        vocabulary=[size for size in values("vocabulary") if fits(vocabulary=size)],
        ffn=values("ffn"),
        layers=[count for count in layers if fits(layers=count)],
    )
