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
    slices = [
        Loss(name, slice_, int(values["support"]), values["accuracy"], teacher["accuracy"]["value"])
        for name, content in facts.quality["sets"].items()
        for slice_, values in content["slices"].items()
        if "accuracy" in values and "accuracy" in (teacher := teacher_slice(facts, name, slice_))
    ]
    return sorted(slices, key=lambda loss: (-loss.drop, loss.set, loss.slice))


def teacher_slice(facts: Facts, name: str, slice_: str) -> Mapping[str, Any]:
    """Return what was measured of the teacher on a slice of a set; nothing where it was not."""
    values: Mapping[str, Any] = facts.teacher_quality["sets"].get(name, {}).get("slices", {}).get(slice_, {})
    return values


def limits(facts: Facts) -> list[str]:
    """Return what the model must not be used for without further evaluation, a sentence each."""
    sets = facts.quality["sets"]
    longest = facts.params["data"]["max_tokens"]
    errors = {name: sets[name]["slices"]["overall"]["calibration_error"] for name in sorted(sets)}
    shown = ", ".join(f"{interval(error)} on {name}" for name, error in errors.items())
    sentences = [
        _elsewhere(facts, list(errors)),
        f"Questions with other answers than {', '.join(facts.labels)}: the model always chooses one of these.",
        f"{'Pairs' if facts.of_pairs else 'Texts'} of more than {longest} tokens: training and evaluation cut them there.",
        "Decisions about people, such as credit, work, health or law: no measurement here compares groups of people.",
        f"Probabilities taken at their word: the calibration error is {shown}.",
    ]
    few = sorted(f"{loss.set} {loss.slice} ({loss.support} rows)" for loss in losses(facts) if loss.support < FEW_ROWS)
    if few:
        start = f"Conclusions about small slices, of which fewer than {FEW_ROWS} rows were seen"
        sentences.append(f"{start}: {', '.join(few)}.")
    if any(name.endswith(".int8.onnx") for name in facts.files):
        sentences.append("The int8 file where its accuracy is not measured: the gates judged the float model.")
    return sentences


def _elsewhere(facts: Facts, sets: list[str]) -> str:
    """Return what is known of other texts: nothing, or how often the model answers there as its teacher."""
    start = f"Texts of another language, subject or style than those of the sets {', '.join(sets)}: nothing else was measured"
    agreements = {
        name: entry["slices"]["overall"]["agreement"]
        for name, entry in sorted(facts.quality.get("unlabelled", {}).items())
        if "overall" in entry["slices"]
    }
    if not agreements:
        return f"{start}."
    shown = ", ".join(f"{interval(agreement)} on {name}" for name, agreement in agreements.items())
    return f"{start} with labels. Without labels it was compared with its teacher; the share of the same answers is {shown}."


def tradeoffs(facts: Facts) -> list[str]:
    """Return what the smaller size cost, worst slice first, a sentence each; empty when no slice lost anything."""
    return [
        f"{loss.set}, slice {loss.slice} ({loss.support} rows): accuracy {interval(loss.student)}, "
        f"{100 * loss.drop:.1f} points below the teacher's {loss.teacher:.3f}."
        for loss in losses(facts)[:SHOWN]
        if loss.drop > 0
    ]


def interval(value: Mapping[str, float]) -> str:
    """Return a number with its interval for people: 0.820 [0.796, 0.844]."""
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
