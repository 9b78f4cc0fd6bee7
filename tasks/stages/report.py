"""Writes the report: one HTML page with the front, the rounds, their verdicts, and where each thing came from.

deps: rounds (evaluations, verdicts, training logs), baselines, validation/summary.json, selection.json,
data/summary.json; params: rounds, registry, seed; out: report.html. Receipts hold times, so they are shown but are no
dependency.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.files import read_json, read_json_lines
from tasks.params.classification import ClassificationParams
from tasks.report.page import headline, render
from tasks.running.stage import InPath, OutPath


def run(
    params: ClassificationParams,
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
    story = {
        "name": params.registry.model_name,
        "seed": params.seed,
        "rounds": names,
        "models": {name: read_model(rounds / name) for name in ("teacher", *names)},
        "rivals": read_json(baselines / "quality.json")["rivals"],
        "selection": read_json(selection),
        "validation": read_json(validation),
        "data": read_json(data),
        "receipts": read_receipts(Path(receipts) if receipts else None, names),
    }
    page = render(story)
    out.write_text(page, encoding="utf-8")
    return {"headline": headline(story), "page_bytes": len(page.encode())}


def read_model(folder: Path) -> dict[str, Any]:
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
    if folder is None or not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*.json")):
        stage, _, name = path.stem.partition("@")
        if stage != "report" and (not name or name in rounds):
            found.append(read_json(path))
    return found
