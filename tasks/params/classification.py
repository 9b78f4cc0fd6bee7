"""The sections of params.yaml that say where a classifier's text comes from: `data` and `validate_data`.

The sections of params.yaml that say how a classifier learns: `teacher` and `distill`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from tasks.gates.rules import ONLY_CAUSAL_LM
from tasks.params.base import Evaluate, Params
from tasks.params.gates import check_gates
from tasks.params.parts import Name, Positive, Section, Share, Source, did_you_mean
from tasks.params.rounds import Round, check_round, check_rows, trials_of


class Columns(Section):
    """Which column of the data file holds what; `split` may be null, then rows are split by content hash."""

    text: str
    label: str
    source: str | None
    split: str | None


class Splits(Section):
    """Shares of the labelled rows kept for validation and test; the rest is the training set."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)]
    test: Annotated[float, Field(gt=0.0, lt=0.5)]


class Transfer(Section):
    """Unlabelled text on which the student imitates the teacher: sentences of `sources`, and spliced training rows."""

    sources: list[str]
    min_words: Positive
    max_words: Positive
    rows: Annotated[int, Field(ge=0)]
    spliced_rows: Annotated[int, Field(ge=0)]


class EvaluationSet(Section):
    """A further labelled evaluation set, held out by source."""

    sources: list[str]
    rows: Positive


class Typos(Section):
    """A copy of an evaluation set with slips of the keyboard in a share of the words: the set `<of>_typos`."""

    of: Name
    word_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Data(Section):
    """Where the text comes from and how it is cut into sets."""

    source: Source
    columns: Columns
    labels: dict[int, str]
    task_sources: list[str] | None
    splits: Splits
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1.0)]
    transfer: Transfer
    evaluation_sets: dict[Name, EvaluationSet]
    typos: Typos | None
    calibration_rows: Positive
    max_tokens: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _labels_are_dense(self) -> Self:
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels must number the classes 0, 1, ...; got {sorted(self.labels)}")
        if set(self.evaluation_sets) & {"train", "validation", "test", "transfer", "calibration"}:
            raise ValueError("evaluation_sets may not be named train, validation, test, transfer or calibration")
        return self

    @model_validator(mode="after")
    def _typos_are_of_a_set(self) -> Self:
        sets = ["validation", "test", *self.evaluation_sets]
        if self.typos is not None and self.typos.of not in sets:
            raise ValueError(
                f"typos.of: {self.typos.of!r} is not one of {', '.join(sets)}{did_you_mean(self.typos.of, sets)}"
            )
        if self.typos is not None and f"{self.typos.of}_typos" in sets:
            raise ValueError(f"evaluation_sets: {self.typos.of}_typos is the name of the set that `typos` makes")
        return self

    @property
    def further_sets(self) -> list[str]:
        """Return the names of the evaluation sets besides validation and test."""
        return [*self.evaluation_sets, *([f"{self.typos.of}_typos"] if self.typos else [])]

    @property
    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return ["validation", "test", *self.further_sets]


class ValidateData(Section):
    """Limits the data must keep to; beyond them the run stops before any training."""

    min_rows_per_class: Positive
    max_class_share: Annotated[float, Field(gt=0.0, le=1.0)]
    max_duplicate_share: Share
    max_conflicting_share: Share
    max_characters: Positive


class Teacher(Section):
    """The model to compress; `epochs: 0` takes it as it is."""

    model: Source
    epochs: Annotated[int, Field(ge=0)]
    frozen_layers: Annotated[int, Field(ge=0)] | None
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    batch_rows: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]
    checkpoints: Positive


def _weight(value: object) -> object:
    if value == "dynamic" or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf):
        return value
    raise ValueError(
        f"got {value!r}; dynamic (the ratio of the two losses, at each step) or a number above 0 is allowed"
    )


Weight = Annotated[float | Literal["dynamic"], PlainValidator(_weight)]


def check_parts(name: str, weight: float | str, accumulate: int) -> None:
    """Raise ValueError where the dynamic weight of an extra loss would be a ratio of each part of a batch."""
    if weight == "dynamic" and accumulate > 1:
        raise ValueError(
            f"{name}.weight: dynamic would be another ratio in each of the {accumulate} parts of a batch; "
            "give a number, or set accumulate: 1"
        )


class Hidden(Section):
    """An extra loss on what the layers hold of a row: `tasks.training.hidden`."""

    loss: Literal["cosine", "mse"]
    weight: Weight
    layers: Literal["uniform", "last"]
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Relations(Section):
    """An extra loss on how the tokens of a row relate in the last layer: `tasks.training.hidden`."""

    heads: Positive
    weight: Weight
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Distill(Section):
    """How the student learns from the teacher; the budgets of a round stand in `rounds`.

    The names of losses are those of `tasks.training.losses.LOSSES`.
    """

    loss: Literal["forward_kl", "jensen_shannon", "reverse_kl"]
    temperature: Annotated[float, Field(gt=0.0)]
    kd_weight: Share
    cache: None  # of language models; of a classifier all logits are cached. dvc.yaml names the key for both tasks
    hidden: Hidden | None
    relations: Relations | None
    batch_rows: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    accumulate: Positive
    average: Annotated[float, Field(gt=0.0, lt=1.0)] | None
    checkpoints: Positive

    @model_validator(mode="after")
    def _parts_weigh_as_the_whole(self) -> Self:
        for name, extra in (("hidden", self.hidden), ("relations", self.relations)):
            if extra is not None:
                check_parts(name, extra.weight, self.accumulate)
        return self


class ClassificationParams(Params):
    """The whole of params.yaml for the task classification."""

    task: Literal["classification"]
    data: Data
    validate_data: ValidateData
    teacher: Teacher
    distill: Distill
    rounds: dict[Name, Round]
    evaluate: Evaluate

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        return {"data.source": self.data.source, "teacher.model": self.teacher.model}

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> Self:
        for gate in [*self.gates, *self.promotion.gates]:
            if gate.metric in ONLY_CAUSAL_LM:
                raise ValueError(f"gates: metric {gate.metric} is measured of language models, task: causal_lm")
        check_gates(self.gates, self.promotion.gates, self.data.measured_sets)
        return self

    @model_validator(mode="after")
    def _shares_are_enough(self) -> Self:
        for key in ("hidden", "relations", "average"):
            if self.runtime.sharded and getattr(self.distill, key) is not None:
                raise ValueError(f"distill.{key} needs whole weights; set runtime.launcher.strategy: ddp")
        return self

    @model_validator(mode="after")
    def _rounds_shrink(self) -> Self:
        if not self.rounds:
            raise ValueError("rounds: at least one round is needed")
        seen: dict[str, dict[str, int]] = {}
        for name, target in self.rounds.items():
            check_round(name, target, seen)
            check_rows(f"rounds.{name}", target, self.data.transfer.rows + self.data.transfer.spliced_rows)
            if target.search is not None and self.runtime.launcher is not None:
                raise ValueError(
                    f"rounds.{name}.search trains each candidate in one process; set runtime.launcher: null"
                )
            masked = target.granularity != "structured"
            if masked and self.runtime.sharded:
                raise ValueError(f"rounds.{name}: masks need whole weights; set runtime.launcher.strategy: ddp")
            seen[name] = seen.get(target.parent, {}) if masked else target.axes
        for name in self.baselines.random_init:
            if name not in self.rounds:
                raise ValueError(f"baselines.random_init: {name!r} is not a round; allowed: {', '.join(self.rounds)}")
            if self.rounds[name].granularity != "structured":
                raise ValueError(f"baselines.random_init: {name!r} keeps its parent's shape and masks trained weights")
            if self.rounds[name].search is not None:
                raise ValueError(
                    f"baselines.random_init: {name!r} searches for its shape while it trains; give the shape that it found"
                )
        return self

    @model_validator(mode="after")
    def _searches_are_stages(self) -> Self:
        searches = {name: target.search for name, target in self.rounds.items() if target.search is not None}
        if len({(one.candidates, one.keep) for one in searches.values()}) > 1:
            raise ValueError(
                f"rounds: {', '.join(searches)} have a search each; give all of them the same candidates and the same keep"
            )
        wanted = trials_of({name: one.model_dump() for name, one in searches.items()})
        if self.trials.model_dump() != wanted:
            said = ", ".join(f"{key}: [{', '.join(map(str, values))}]" for key, values in wanted.items())
            raise ValueError(
                f"trials: DVC makes a stage of every candidate that a round with search tries; write trials: {{{said}}}"
            )
        return self
