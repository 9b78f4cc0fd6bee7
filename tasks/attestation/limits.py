"""What a model lost on the way and what it is not known to do: sentences that follow from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tasks.attestation.facts import Facts

SHOWN: Final = 5
FEW_ROWS: Final = 200  # a share measured on fewer rows has an interval wider than about 12 points


@dataclass(frozen=True)
class Loss:
    """How much accuracy one slice lost against the teacher: shares of rows, the student's with its interval."""

    set: str
    slice: str
    support: int
    student: Mapping[str, float]
    teacher: float

    @property
    def drop(self) -> float:
        """Return the teacher's accuracy minus the student's; negative where the student is better."""
        return self.teacher - self.student["value"]


def losses(facts: Facts) -> list[Loss]:
    """Return every slice with rows, the one that lost most accuracy against the teacher first."""
    found = []
    for name, content in facts.quality["sets"].items():
        for slice_, values in content["slices"].items():
            theirs = _slice(facts.teacher_quality, name, slice_)
            if "accuracy" in values and "accuracy" in theirs:
                mine, reference = values["accuracy"], theirs["accuracy"]["value"]
                found.append(Loss(name, slice_, int(values["support"]), mine, reference))
    return sorted(found, key=lambda one: (-one.drop, one.set, one.slice))


def _slice(quality: Mapping[str, Any], name: str, slice_: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = quality["sets"].get(name, {}).get("slices", {}).get(slice_, {})
    return found


def limits(facts: Facts) -> list[str]:
    """Return what the model must not be used for without further evaluation, a sentence each."""
    measured = ", ".join(sorted(facts.quality["sets"]))
    longest = facts.params["data"]["max_tokens"]
    found = [
        f"Texts of another language, subject or style than those of the sets {measured}: nothing else was measured.",
        f"Questions with other answers than {', '.join(facts.labels)}: the model always chooses one of these.",
        f"Texts of more than {longest} tokens: training and evaluation cut them there.",
        "Decisions about people, such as credit, work, health or law: no measurement here compares groups of people.",
    ]
    errors = {
        name: content["slices"]["overall"]["calibration_error"] for name, content in facts.quality["sets"].items()
    }
    shown = ", ".join(f"{interval(errors[name])} on {name}" for name in sorted(errors))
    found.append(f"Probabilities taken at their word: the calibration error is {shown}.")
    few = [f"{one.set} {one.slice} ({one.support} rows)" for one in losses(facts) if one.support < FEW_ROWS]
    if few:
        found.append(
            f"Conclusions about small slices, of which fewer than {FEW_ROWS} rows were seen: {', '.join(sorted(few))}."
        )
    if any(name.endswith(".int8.onnx") for name in facts.files):
        found.append("The int8 file where its accuracy is not measured: the gates judged the float model.")
    return found


def tradeoffs(facts: Facts) -> list[str]:
    """Return what the smaller size cost, worst slice first, a sentence each; empty when no slice lost anything."""
    return [
        f"{one.set}, slice {one.slice} ({one.support} rows): accuracy {interval(one.student)}, "
        f"{100 * one.drop:.1f} points below the teacher's {one.teacher:.3f}."
        for one in losses(facts)[:SHOWN]
        if one.drop > 0
    ]


def interval(value: Mapping[str, float]) -> str:
    """Return a number with its interval for people: 0.820 [0.796, 0.844]."""
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
