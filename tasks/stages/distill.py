"""Recovers a pruned student: it imitates the original teacher, a classifier by its cached logits.

A round with `search` has been trained by the stages `trial` and `finish`; here the best finished candidate is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tasks.files import read_json
from tasks.models.checkpoint import load_causal_lm, load_classifier
from tasks.models.devices import pick_for_training
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.rounds import Round
from tasks.progress import say
from tasks.running.stage import InPath, OutPath
from tasks.training import causal_lm, classification
from tasks.training.candidates import take_best
from tasks.training.lesson import Job, Lesson, Student
from tasks.training.teacher_cache import check_teacher

LOAD: Final = {CLASSIFICATION: load_classifier, CAUSAL_LM: load_causal_lm}
DISTIL: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {CLASSIFICATION: classification.distil, CAUSAL_LM: causal_lm.distil}


def run(
    params: Params,
    *,
    round: str,
    pruned: InPath,
    search: InPath,
    tokens: InPath,
    sets: InPath,
    logits: InPath,
    teacher: InPath,
    out: OutPath,
) -> dict[str, Any]:
    """Return the summary of the training, with its speed and the device it ran on; of a search also `search`: search.json."""
    check_teacher(logits, teacher)
    device, target = pick_for_training(params.runtime), params.rounds[round]
    if isinstance(target, Round) and target.search is not None:
        record = take_best(read_json(pruned / "plan.json")["candidates"], target.search.keep, search, out)
        say(f"{round}: took candidate {record['chosen']} of {len(record['candidates'])}")
        return {**read_json(out / "summary.json"), "search": record, **device.facts()}
    start, job = pruned / "model", Job(f"distill@{round}", out, device)
    student, lesson = Student(LOAD[params.task](start), start), Lesson(sets, tokens, logits, teacher)
    return {**DISTIL[params.task](params, round, student, lesson, job), **device.facts()}
