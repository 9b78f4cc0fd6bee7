"""The shape a round reaches: as params.yaml gives it, or solved for a budget within what the family can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from tasks.errors import ParamsError
from tasks.models.architectures import adapter_of
from tasks.models.causal_lm import count_parameters, flops_per_token
from tasks.params.causal_lm import CausalRound
from tasks.params.rounds import AnyRound, Round
from tasks.pruning.planner import TOLERANCE, Candidate, Space, lost, most_different, reachable, shapes_within, sizes_along

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """What a budget is counted with: the teacher's config for `ratio`, the classes, and the tokens of `flops_per_example`.

    `pieces` are the most that a vocabulary is cut to, those that occur or are needed: None as long as nobody counted.
    """

    teacher: Config
    classes: int
    tokens: int
    pieces: int | None = None
    flops_budget: ClassVar[str] = "flops_per_example"

    def parameters(self, config: Config, shape: Mapping[str, int]) -> int:
        """Return the parameters of a model of this config cut to a shape."""
        return adapter_of(config).count_parameters(config, shape, self.classes)["total"]

    def flops(self, config: Config, shape: Mapping[str, int]) -> int:
        """Return the FLOPs of one forward pass of a model of this config cut to a shape."""
        adapter = adapter_of(config)
        return adapter.flops_per_example(adapter.resized(config, shape), self.tokens, self.classes)


class BlockMeasure(Measure):
    """The same for language models, which have no classes; `tokens` are those of the block of `flops_per_token`."""

    flops_budget = "flops_per_token"

    def __init__(self, teacher: Config, tokens: int, pieces: int | None = None) -> None:
        super().__init__(teacher, 0, tokens, pieces)

    def parameters(self, config: Config, shape: Mapping[str, int]) -> int:
        """Return the parameters of a model of this config cut to a shape, a tied head counted once."""
        return count_parameters(config, shape)["total"]

    def flops(self, config: Config, shape: Mapping[str, int]) -> int:
        """Return the FLOPs of one token of a block."""
        return flops_per_token(adapter_of(config).resized(config, shape), self.tokens)


def solves_vocabulary(target: AnyRound, config: Config) -> bool:
    """Return whether a round leaves the vocabulary to its budget, or holds it below that of a parent of this config."""
    return bool(target.budgets) and target.axes.get("vocabulary", 0) < int(config["vocab_size"])


def target_shape(where: str, target: Round, config: Config, measure: Measure) -> dict[str, int]:
    """Return the size along each axis that a round cuts a parent of this config to; ParamsError if none meets the budget."""
    if target.granularity != "structured":
        return adapter_of(config).shape(config)
    return candidates(where, target, config, measure)[0].shape if target.budgets else target.axes


def possible_shapes(where: str, target: Round, config: Config, measure: Measure) -> list[dict[str, int]]:
    """Return the one shape of a round, or those that its `search` tries; the first is the least lost."""
    if target.search is None:
        return [target_shape(where, target, config, measure)]
    return [candidate.shape for candidate in searched_shapes(where, target, config, measure)]


def searched_shapes(where: str, target: Round, config: Config, measure: Measure) -> list[Candidate]:
    """Return the shapes that a round with `search` tries; the first is the least lost. ParamsError if there are too few.

    All have the vocabulary of the least lost one: it decides the tokens of the round, which are made once.
    """
    assert target.search is not None
    every = candidates(where, target, config, measure)
    vocabulary = every[0].shape["vocabulary"]
    alike = [candidate for candidate in every if candidate.shape["vocabulary"] == vocabulary]
    if len(alike) < target.search.candidates:
        raise ParamsError(
            f"{where}.search.candidates: {target.search.candidates} are asked for, and {len(alike)} shapes meet the budget with "
            f"a vocabulary of {vocabulary}; ask for fewer, hold fewer axes, or give another vocabulary"
        )
    return most_different(alike, target.search.candidates)


def candidates(where: str, target: Round, config: Config, measure: Measure) -> list[Candidate]:
    """Return every shape within 5 % below the budget of a round, the one that keeps most of what matters first.

    Of `speedup` the shapes are those that were measured and are fast enough, and their size is the latency in microseconds.
    """
    solve = _within_budget if target.speedup is None else _fast_enough
    return solve(where, target, config, measure)


def causal_shape(
    where: str, target: CausalRound, config: Config, teacher: Config, tokens: int, pieces: int | None = None
) -> dict[str, int]:
    """Return what `target_shape` does for a round of a language model; `tokens` are those of the block of `flops_per_token`."""
    if not target.budgets:
        return target.axes
    return _within_budget(where, target, config, BlockMeasure(teacher, tokens, pieces))[0].shape


def _within_budget(where: str, target: AnyRound, config: Config, measure: Measure) -> list[Candidate]:
    """Return the shapes within 5 % below the one budget of parameters or FLOPs that a round gives; ParamsError if none is."""
    ((name, value),) = target.budgets.items()
    size, budget = partial(measure.parameters, config), int(value)
    if name == measure.flops_budget:
        size = partial(measure.flops, config)
    elif name == "ratio":
        teacher = measure.teacher
        budget = int(measure.parameters(teacher, adapter_of(teacher).shape(teacher)) / value)
    space = space_of(config, target.axes)
    shapes, pieces = shapes_within(space, size, budget), measure.pieces
    if pieces is not None and (not shapes or shapes[0].shape["vocabulary"] > pieces):
        space = space_of(config, target.axes, pieces)
        shapes = shapes_within(space, size, budget)
        if not shapes and not space.is_empty and reachable(space, size)[1] <= budget:  # all the rest may stay
            shapes = shapes_within(space, size, reachable(space, size)[1])
    if not shapes:
        words = "no such shape fits the family"
        if not space.is_empty:
            words = "from {:,} to {:,} can be reached".format(*reachable(space, size))
        held = ", ".join(f"{axis} = {fixed}" for axis, fixed in target.axes.items()) or "no axis held"
        raise ParamsError(f"{where}.{name}: no shape within {TOLERANCE:.0%} below {budget:,} ({held}); {words} in one round")
    return shapes


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
        timed
        for timed in measured.shapes
        if adapter.refusal(config, timed.shape) is None
        and timed.shape != before
        and all(timed.shape[axis] <= before[axis] for axis in before)
        and target.axes.items() <= timed.shape.items()
    ]
    fast = [
        Candidate(timed.shape, round(1000 * timed.latency_ms), lost(before, timed.shape))
        for timed in fits
        if timed.speedup >= wanted
    ]
    if not fast:
        best = max((timed.speedup for timed in fits), default=0.0)
        raise ParamsError(
            f"{where}.speedup: {len(fits)} of {len(measured.shapes)} measured shapes fit the parent and the axes that are held; "
            f"the fastest of them is {best:.2f} times as fast as the teacher, not {wanted:g} times; ask for less, or {again}"
        )
    return sorted(fast, key=lambda candidate: (candidate.loss, candidate.size))


def space_of(config: Config, held: Mapping[str, int], pieces: int | None = None) -> Space:
    """Return the shapes that stock classes can hold of a parent of this config, with some axes held at a size.

    A vocabulary that is not held at the parent's size is cut, and then to `pieces` at most.
    """
    adapter = adapter_of(config)
    before, head_size = adapter.shape(config), adapter.head_size(config)

    def fits(**sizes: int) -> bool:
        return adapter.refusal(config, {**before, **sizes}) is None

    def values(axis: str) -> list[int]:
        # a parent may have come out smaller than params.yaml says
        return [min(held[axis], before[axis])] if axis in held else sizes_along(before[axis])

    every_head = [held["heads"]] if "heads" in held else list(range(1, before["heads"] + 1))
    widths = {*values("hidden"), *(head_size * heads for heads in every_head if "hidden" not in held)}
    pairs = [
        (hidden, heads)
        for hidden in sorted(width for width in widths if width <= before["hidden"])
        for heads in every_head
        if hidden % heads == 0 and fits(hidden=hidden, heads=heads)
    ]
    sizes, useful, parent = values("vocabulary"), before, None
    if pieces is not None and max(pieces, held.get("vocabulary", 0)) < before["vocabulary"]:
        sizes = sorted({min(size, pieces) for size in sizes})
        useful, parent = {**before, "vocabulary": sizes[-1]}, before
    vocabulary = [size for size in sizes if fits(vocabulary=size)]
    every_depth = [held["layers"]] if "layers" in held else list(range(1, before["layers"] + 1))
    layers = [count for count in every_depth if fits(layers=count)]
    return Space(useful, pairs, vocabulary, values("ffn"), layers, parent)
