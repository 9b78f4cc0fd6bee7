"""Measures a model: quality with intervals on every evaluation set, and its cost beside the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from tasks.artifacts import Cost, Quality
from tasks.files import write_json
from tasks.measuring import causal_lm, classification
from tasks.measuring.subject import Subject, Teacher
from tasks.models.checkpoint import load_causal_lm, load_classifier
from tasks.models.devices import pick
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.measures import SETTINGS
from tasks.running.stage import InPath, OutPath

LOAD: Final[dict[str, Callable[..., Any]]] = {CLASSIFICATION: load_classifier, CAUSAL_LM: load_causal_lm}
MEASURES: Final[dict[str, Callable[..., Quality]]] = {
    CLASSIFICATION: classification.measure_sets,
    CAUSAL_LM: causal_lm.measure_sets,
}
COSTS: Final[dict[str, Callable[..., Cost]]] = {CLASSIFICATION: classification.measure_cost, CAUSAL_LM: causal_lm.measure_cost}
HEADLINES: Final = {CLASSIFICATION: ("flops_per_example", "accuracy"), CAUSAL_LM: ("flops_per_token", "perplexity")}


def run(
    params: Params,
    *,
    round: str,
    model: InPath,
    exported: InPath,
    sets: InPath,
    tokens: InPath,
    teacher: InPath,
    teacher_exported: InPath,
    out: OutPath,
    teacher_evaluated: InPath | None = None,
) -> dict[str, Any]:
    """Return the headline numbers; without `teacher_evaluated` the model is the teacher and agrees with itself."""
    device = pick(params.runtime.device, params.runtime.precision, params.runtime.threads)
    device = replace(device, precision="fp32")  # a verdict should not hang on the rounding of bf16
    settings = SETTINGS[params.task](params)
    subject = Subject(round, LOAD[params.task](model), model, exported, tokens, sets)
    beside = Teacher(teacher, teacher_exported, teacher_evaluated)
    quality = MEASURES[params.task](subject, beside, settings, out, device)
    write_json(out / "quality.json", quality)
    cost = COSTS[params.task](subject, beside, settings)
    write_json(out / "cost.json", cost)
    flops, metric = HEADLINES[params.task]
    headline = {key: value for key, value in cost.items() if key in ("params_total", "size_bytes", flops)}
    for name, entry in quality["sets"].items():
        headline[f"{name}_{metric}"] = entry["slices"]["overall"][metric]["value"]
    return {**headline, **device.facts()}
