"""Trains one of the best candidates of a round with `search` with the whole budget of the round."""

from __future__ import annotations

from typing import Any

from tasks.files import read_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick_for_training
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath
from tasks.training.candidates import order_of
from tasks.training.classification import distil
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import check_teacher


def run(
    params: ClassificationParams,
    *,
    round: str,
    place: str,
    pruned: InPath,
    tried: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the full training of the candidate that ranked at `place`, 1 for the best; and its number."""
    check_teacher(logits, teacher)
    device = pick_for_training(params.runtime)
    order = order_of(tried, read_json(pruned / "plan.json")["candidates"])
    candidate, ranks = order[int(place) - 1], ", ".join(map(str, order))
    say(f"{round}: after the short distillation the candidates rank {ranks}; finishing {candidate}")
    start, job = pruned / "candidates" / str(candidate) / "model", Job(f"finish@{round}-{place}", out, device)
    student = Student(load_classifier(start), start)
    summary = distil(params, round, student, Lesson(sets, tokens, logits, teacher), job)
    return {**summary, "candidate": candidate, **device.facts()}
