"""What a report tells of a run, and how it is asked for one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from tasks.artifacts import Cost, Quality, Verdict

Interval = Mapping[str, float]


class ModelRecord(TypedDict):
    """What is known of the teacher or a round; the teacher has no verdict, and a round `search` if its shape was searched for."""

    quality: Quality
    cost: Cost
    summary: dict[str, Any]
    steps: list[dict[str, Any]]
    verdict: Verdict | None
    search: dict[str, Any] | None


class Example(TypedDict):
    """A text on which a round and its teacher disagree, both answers, and by how many logits the teacher prefers its own."""

    set: str
    text: str
    teacher: str
    student: str
    margin: float


@dataclass(frozen=True)
class Elsewhere:
    """What a report tells of sets without labels beside their numbers: what each is (set -> a line), and single texts."""

    about: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Example] = ()


@dataclass(frozen=True)
class Story:
    """The models of a run by name, teacher first, then the rounds in order; `random_init` is of rounds trained from random
    weights too, `receipts` may be empty.
    """

    name: str
    seed: int
    models: Mapping[str, ModelRecord]
    rivals: Mapping[str, Any]
    random_init: Mapping[str, Quality]
    selection: Mapping[str, Any]
    validation: Mapping[str, Any]
    data: Mapping[str, Any]
    receipts: list[dict[str, Any]]
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict on each round."""
        return {name: model["verdict"] for name, model in self.models.items() if model["verdict"] is not None}

    @property
    def focus(self) -> str:
        """Return the round the details are about: the selected one, else the last."""
        return str(self.selection["selected"] or [*self.models][-1])

    def cost(self, model: str, *keys: str) -> float | None:
        """Return a number of a model's cost.json, None where it has none."""
        number: float | None = value_of(self.models[model]["cost"], *keys)
        return number

    def times_less(self, model: str, *keys: str) -> float | None:
        """Return the teacher's cost / that of a model."""
        return ratio(self.cost("teacher", *keys), self.cost(model, *keys))

    def measured(self, model: str, set_name: str, *place: str) -> Interval | None:
        """Return what quality.json has at a place of a set: slices, overall, accuracy."""
        interval: Interval | None = value_of(self.models[model]["quality"], "sets", set_name, *place)
        return interval

    def overall(self, model: str, set_name: str, metric: str) -> float | None:
        """Return a metric over a whole set."""
        number: float | None = value_of(self.measured(model, set_name, "slices", "overall", metric), "value")
        return number


def value_of(place: Any, *keys: str) -> Any:
    """Return what lies below `keys`, or None where one is missing."""
    for key in keys:
        if not isinstance(place, Mapping) or key not in place:
            return None
        place = place[key]
    return place


def ratio(number: float | None, other: float | None) -> float | None:
    """Return number / other, or None where that says nothing."""
    return number / other if number is not None and other else None
