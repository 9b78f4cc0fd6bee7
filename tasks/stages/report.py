"""Writes the report: one HTML page with the rounds, their verdicts, and where each thing came from.

Receipts hold times, so they are shown but are no dependency.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tasks.files import read_json, read_json_lines
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.report import causal_lm, classification
from tasks.report.story import ModelRecord, Story
from tasks.running.stage import InPath, OutPath

RENDER: Final[dict[str, Callable[[Story], str]]] = {CLASSIFICATION: classification.render, CAUSAL_LM: causal_lm.render}
HEADLINE: Final[dict[str, Callable[[Story], str]]] = {CLASSIFICATION: classification.headline, CAUSAL_LM: causal_lm.headline}


def run(
    params: Params,
    *,
    rounds: InPath,
    baselines: InPath,
    validation: InPath,
    selection: InPath,
    data: InPath,
    out: OutPath,
    receipts: str | None = None,
) -> dict[str, Any]:
    """Return the verdict in one sentence and the size of the page."""
    names = list(params.rounds)
    random_starts = {name: rounds / name / "random_init" / "quality.json" for name in params.baselines.random_init}
    story = Story(
        name=params.registry.model_name,
        seed=params.seed,
        models={name: read_model(rounds / name) for name in ("teacher", *names)},
        rivals=read_json(baselines / "quality.json")["rivals"],
        random_init={name: read_json(path) for name, path in random_starts.items()},
        selection=read_json(selection),
        validation=read_json(validation),
        data=read_json(data),
        receipts=read_receipts(Path(receipts) if receipts else None, names),
    )
    page = RENDER[params.task](story)
    out.write_text(page, encoding="utf-8")
    return {"headline": HEADLINE[params.task](story), "page_bytes": len(page.encode())}


def read_model(folder: Path) -> ModelRecord:
    """Return what is known of the teacher or a round; the teacher has no verdict."""
    steps, verdict = folder / "trained" / "steps.jsonl", folder / "verdict.json"
    search = folder / "trained" / "search.json"
    return {
        "quality": read_json(folder / "evaluated" / "quality.json"),
        "cost": read_json(folder / "evaluated" / "cost.json"),
        "summary": read_json(folder / "trained" / "summary.json"),
        "steps": read_json_lines(steps) if steps.is_file() else [],  # a teacher taken as it is has none
        "verdict": read_json(verdict) if verdict.is_file() else None,
        "search": read_json(search) if search.is_file() else None,
    }


def read_receipts(folder: Path | None, rounds: list[str]) -> list[dict[str, Any]]:
    """Return the receipts of the stages of this run, without a report's and those of rounds params.yaml has not."""
    paths = sorted(folder.glob("*.json")) if folder is not None else []
    named = [(path, *path.stem.partition("@")) for path in paths]
    return [read_json(path) for path, stage, _, name in named if stage != "report" and (not name or name in rounds)]
