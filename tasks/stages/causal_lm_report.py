"""Writes the report of a language model: one HTML page with the rounds, their verdicts, and where each thing came from.

deps: rounds (evaluations, verdicts, training logs), validation/summary.json, selection.json, data/summary.json
params: rounds, registry, seed; out: report.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.files import read_json
from tasks.params.causal_lm import CausalLMParams
from tasks.report.causal_lm import headline, render
from tasks.running.stage import InPath, OutPath
from tasks.stages.report import read_model, read_receipts


def run(
    params: CausalLMParams,
    *,
    rounds: InPath,
    baselines: InPath,  # noqa: ARG001 - a language model has none
    validation: InPath,
    selection: InPath,
    data: InPath,
    out: OutPath,
    receipts: str | None = None,
) -> dict[str, Any]:
    """Return the verdict in one sentence and the size of the page."""
    names = list(params.rounds)
    story = {
        "name": params.registry.model_name,
        "seed": params.seed,
        "rounds": names,
        "models": {name: read_model(rounds / name) for name in ("teacher", *names)},
        "random_init": {
            name: read_json(rounds / name / "random_init" / "quality.json") for name in params.baselines.random_init
        },
        "selection": read_json(selection),
        "validation": read_json(validation),
        "data": read_json(data),
        "receipts": read_receipts(Path(receipts) if receipts else None, names),
    }
    page = render(story)
    out.write_text(page, encoding="utf-8")
    return {"headline": headline(story), "page_bytes": len(page.encode())}
