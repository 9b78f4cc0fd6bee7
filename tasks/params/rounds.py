"""The sections `rounds` and `trials` of params.yaml, and what a round may ask of the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.models.shapes import AXES
from tasks.params.parts import Count, LearningRate, Positive, Section

Criterion = Literal["activation", "magnitude_l1", "magnitude_l2", "random", "taylor", "wanda"]
Loss = Literal["forward_kl", "jensen_shannon", "reverse_kl"]
Times = Annotated[float, Field(gt=1.0, allow_inf_nan=False)]
BUDGETS = ("params_total", "ratio", "flops_per_example", "speedup")


class Search(Section):
    """Several shapes within the budget of a round, tried by a short distillation each; the best `keep` are finished.

    The short distillation is of `transfer_rows` rows of the transfer set and of no labelled ones.
    """

    candidates: Annotated[int, Field(ge=2, le=16)]
    transfer_rows: Positive
    keep: Positive

    @model_validator(mode="after")
    def _something_is_ranked(self) -> Self:
        if self.keep >= self.candidates:
            raise ValueError(
                f"keep: {self.keep} of {self.candidates} candidates leaves nothing to rank; allowed: 1 to {self.candidates - 1}"
            )
        return self


class Sizes(Section):
    """A whole shape."""

    vocabulary: Positive
    hidden: Positive
    heads: Positive
    ffn: Positive
    layers: Positive

    @property
    def shape(self) -> dict[str, int]:
        """Return the size along each axis."""
        return {axis: int(getattr(self, axis)) for axis in AXES}


class MeasuredShape(Sizes):
    """The median latency of a shape and of the teacher, which took turns: one row, one thread, milliseconds."""

    latency_ms: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    teacher_latency_ms: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

    @property
    def speedup(self) -> float:
        """Return how many times faster than the teacher the shape was."""
        return self.teacher_latency_ms / self.latency_ms


class Measured(Section):
    """What `compactlm measure` found for a round with `speedup`: an input of the run, so the same file gives the same shape."""

    tokens: Positive
    machine: str
    shapes: Annotated[list[MeasuredShape], Field(min_length=1)]


class AnyRound(Section):
    """What the rounds of every task have: axes at a size, or one budget of `budget_names` that the rest is solved for."""

    budget_names: ClassVar[tuple[str, ...]]

    parent: str
    vocabulary: Positive | None = None
    hidden: Positive | None = None
    heads: Positive | None = None
    ffn: Positive | None = None
    layers: Positive | None = None
    params_total: Positive | None = None
    ratio: Times | None = None
    learning_rate: LearningRate

    @model_serializer(mode="wrap")
    def _only_what_is_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    @property
    def budgets(self) -> dict[str, float]:
        """The budget that is given, by its name; empty where the whole shape is."""
        return {name: getattr(self, name) for name in self.budget_names if getattr(self, name) is not None}

    @property
    def axes(self) -> dict[str, int]:
        """The axes whose size is given."""
        return {axis: int(getattr(self, axis)) for axis in AXES if getattr(self, axis) is not None}

    def check_budget(self) -> None:
        """Raise ValueError unless the round gives all axes, or some and one budget."""
        missing, budgets = [axis for axis in AXES if axis not in self.axes], self.budgets
        if len(budgets) > 1:
            raise ValueError(f"{' and '.join(budgets)}: one budget at a time")
        if missing and not budgets:
            raise ValueError(f"{', '.join(missing)}: missing; give every axis, or one of {', '.join(self.budget_names)}")
        if budgets and not missing:
            raise ValueError(f"{next(iter(budgets))}: all axes are given, so nothing is left to solve; drop one of them")


class Round(AnyRound):
    """One round: what becomes of `parent`, and the distillation budget to recover with. Keys that do not apply are left out.

    Shapes: all five axes, or one of `params_total`, `ratio`, `flops_per_example` and `speedup` with any axes held at a size; the
    rest is solved by `tasks.pruning.planner`, or searched for with `search`. Masks keep the parent's shape:
    `granularity` with `sparsity` or `pattern`.
    """

    budget_names: ClassVar[tuple[str, ...]] = BUDGETS

    flops_per_example: Positive | None = None
    speedup: Times | None = None
    measured: Measured | None = None
    search: Search | None = None
    granularity: Literal["structured", "unstructured", "n_m"] = "structured"
    criterion: Criterion | None = None
    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    pattern: Annotated[str, Field(pattern=r"^[1-9]\d?:[1-9]\d?$")] | None = None
    schedule: Literal["single", "linear", "cubic"] | None = None
    labelled_epochs: Count
    transfer_epochs: Annotated[float, Field(ge=0.0)]

    @model_validator(mode="after")
    def _is_one_kind_of_round(self) -> Self:
        if self.granularity != "structured":
            _check_masks(self)
            return self
        idle = [name for name in ("sparsity", "pattern", "schedule") if getattr(self, name) is not None]
        if idle:
            raise ValueError(f"{idle[0]}: belongs to granularity: unstructured or n_m")
        self.check_budget()
        if self.search is not None and not self.budgets:
            raise ValueError(f"search: all axes are given, so there is one shape; drop some and give one of {', '.join(BUDGETS)}")
        if self.search is not None and self.speedup is not None:
            raise ValueError(
                "search: few shapes are measured for speedup, so there are none to search among; "
                "drop it, or give params_total, ratio or flops_per_example"
            )
        if self.measured is not None and self.speedup is None:
            raise ValueError("measured: belongs to speedup")
        return self


class Trials(Section):
    """The searches as DVC needs them, to make a stage of each candidate (`trial`) and of each kept one (`finish`)."""

    rounds: list[str]
    candidates: list[Positive]
    places: list[Positive]


def trials_of(searches: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the section `trials` for the sections `search` by round, of which all have the same candidates and keep."""
    first = next(iter(searches.values()), {})
    candidates, keep = (value if isinstance(value, int) else 0 for value in map(first.get, ("candidates", "keep")))
    return {"rounds": [*searches], "candidates": [*range(1, candidates + 1)], "places": [*range(1, keep + 1)]}


def check_round(name: str, target: AnyRound, earlier: Mapping[str, Mapping[str, int]]) -> None:
    """Raise ValueError unless a round starts from an earlier one and shrinks, as far as the given axes tell."""
    where = f"rounds.{name}"
    if name in ("teacher", "r0"):
        raise ValueError(f"{where}: the names teacher and r0 belong to the teacher; choose another")
    hidden, heads = target.axes.get("hidden"), target.axes.get("heads")
    if hidden is not None and heads is not None and hidden % heads:
        raise ValueError(
            f"{where}.heads: {heads} does not divide {where}.hidden = {hidden}; "
            "every head needs the same whole number of channels"
        )
    if target.parent == "teacher":
        return
    if target.parent not in earlier:
        allowed = ", ".join(["teacher", *earlier])
        raise ValueError(f"{where}.parent: {target.parent!r} is not an earlier round; allowed: {allowed}")
    check_shrinks(where, target.axes, earlier[target.parent])


def check_shrinks(where: str, child: Mapping[str, int], parent: Mapping[str, int]) -> None:
    """Raise ValueError unless every axis known of both is at most the parent's, and one is smaller if all are known."""
    known = [axis for axis in AXES if axis in child and axis in parent]
    for axis in known:
        if child[axis] > parent[axis]:
            raise ValueError(
                f"{where}.{axis}: {child[axis]} is larger than its parent's {parent[axis]}; allowed: 1 to {parent[axis]}"
            )
    if len(known) == len(AXES) and all(child[axis] == parent[axis] for axis in AXES):
        raise ValueError(f"{where}: the same shape as its parent; make at least one of {', '.join(AXES)} smaller")


def _check_masks(target: Round) -> None:
    """Raise ValueError unless a round of masks says what it needs and nothing else."""
    kind = target.granularity
    shaped = [*target.axes, *target.budgets]
    shaped += [name for name in ("search", "measured") if getattr(target, name) is not None]
    if shaped:
        raise ValueError(f"{shaped[0]}: granularity: {kind} keeps the parent's shape; drop it")
    needed, other = ("sparsity", "pattern") if kind == "unstructured" else ("pattern", "sparsity")
    if getattr(target, needed) is None or target.schedule is None or getattr(target, other) is not None:
        raise ValueError(f"granularity: {kind} needs {needed} and schedule, and takes no {other}")
    if target.criterion in (None, "activation"):
        raise ValueError("criterion: masks rank single weights; give magnitude_l1, magnitude_l2, random, taylor or wanda")
    if target.schedule != "single" and (kind == "n_m" or target.criterion not in ("magnitude_l1", "magnitude_l2")):
        raise ValueError(
            f"schedule: {target.schedule} masks more and more while the student trains, by magnitude and unstructured; "
            "here only single will do"
        )
    if target.pattern is not None:
        n, m = map(int, target.pattern.split(":"))
        if n >= m:
            raise ValueError(f"pattern: {target.pattern} keeps {n} of {m} weights: nothing goes; e.g. 2:4")


def row_faults(where: str, target: Round, transfer_rows: int) -> Iterator[str]:
    """Return what is wrong with the rows of a round: none to train on, or a search that wants more than there can be."""
    if target.labelled_epochs == 0 and target.transfer_epochs * transfer_rows < 1:
        yield (
            f"{where}: labelled_epochs = 0 and transfer_epochs = {target.transfer_epochs} of {transfer_rows} transfer rows "
            "leave nothing to train on; make one of them larger"
        )
    if target.search is not None and target.search.transfer_rows > transfer_rows:
        yield (
            f"{where}.search.transfer_rows: {target.search.transfer_rows} is more than the transfer set can have; "
            f"allowed: 1 to {transfer_rows}"
        )
