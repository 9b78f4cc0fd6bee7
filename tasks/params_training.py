"""The sections of params.yaml that say how a classifier learns: `teacher` and `distill`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from tasks.params_parts import Positive, Section, Share, Source


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
    """An extra loss on what the layers hold of a row: `tasks.distillation.hidden`."""

    loss: Literal["cosine", "mse"]
    weight: Weight
    layers: Literal["uniform", "last"]
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Relations(Section):
    """An extra loss on how the tokens of a row relate in the last layer: `tasks.distillation.relations`."""

    heads: Positive
    weight: Weight
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Distill(Section):
    """How the student learns from the teacher; the budgets of a round stand in `rounds`.

    The names of losses are those of `tasks.distillation.losses.LOSSES`.
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
