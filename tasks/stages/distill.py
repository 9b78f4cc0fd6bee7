"""Recovers a pruned student: it imitates the cached logits of the original teacher, on labelled and transfer rows.

deps: rounds/<round>/{pruned,search,tokens}, data/sets, teacher_logits, rounds/teacher/trained/model (it runs for
distill.relations alone) | params: seed, distill, rounds.<round> | outs: rounds/<round>/trained
A round with `search` has been trained by the stages `trial` and `finish`; here the best finished candidate is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.files import read_json
from tasks.models.checkpoint import load_classifier
from tasks.models.devices import pick_for_training
from tasks.params.classification import ClassificationParams
from tasks.progress import say
from tasks.running.stage import InPath, OutPath
from tasks.training.candidates import take_best
from tasks.training.classification import distil
from tasks.training.teacher_cache import check_teacher


def run(
    params: ClassificationParams,
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
    """Return the summary of the training, with its speed and the device it ran on."""
    check_teacher(logits, teacher)
    device = pick_for_training(params.runtime)
    if params.rounds[round].search is not None:
        return {**_best_candidate(params, round, pruned, search, out), **device.facts()}
    student, name = load_classifier(pruned / "model"), f"distill@{round}"
    facts = distil(params, round, student, pruned / "model", tokens, sets, logits, teacher, out, device, name)
    return {**facts, **device.facts()}


def _best_candidate(params: ClassificationParams, name: str, pruned: Path, search: Path, out: Path) -> dict[str, Any]:
    """Return the summary of the best finished candidate's training, and `search`: search.json, which is written with it."""
    section = params.rounds[name].search
    assert section is not None
    record = take_best(read_json(pruned / "plan.json")["candidates"], section.keep, search, out)
    say(f"{name}: took candidate {record['chosen']} of {len(record['candidates'])}")
    return {**read_json(out / "summary.json"), "search": record}
