"""Writes the report: one HTML page with the rounds, their verdicts, and where each thing came from.

Receipts hold times, so they are shown but are no dependency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.files import read_json, read_json_lines
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.classification import ClassificationParams
from tasks.report import causal_lm, classification
from tasks.report.story import Elsewhere, Example, ModelRecord, Story
from tasks.running.stage import InPath, OutPath

RENDER: Final[dict[str, Callable[[Story], str]]] = {CLASSIFICATION: classification.render, CAUSAL_LM: causal_lm.render}
LONGEST: Final = 280  # characters of a text that is shown
HEADLINE: Final[dict[str, Callable[[Story], str]]] = {CLASSIFICATION: classification.headline, CAUSAL_LM: causal_lm.headline}


def run(
    params: Params,
    *,
    rounds: InPath,
    baselines: InPath,
    validation: InPath,
    selection: InPath,
    data: InPath,
    sets: InPath,
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
    if isinstance(params, ClassificationParams) and params.data.stress is not None:
        story = replace(story, elsewhere=read_elsewhere(params, rounds, sets, story.focus))
    page = RENDER[params.task](story)
    out.write_text(page, encoding="utf-8")
    return {"headline": HEADLINE[params.task](story), "page_bytes": len(page.encode())}


def read_elsewhere(params: ClassificationParams, rounds: Path, sets: Path, name: str) -> Elsewhere:
    """Return what each set of texts is, and the texts on which a round and the teacher disagree, surest teacher first."""
    stress = params.data.stress
    assert stress is not None  # looked at before
    about = {set_name: texts.about for set_name, texts in zip(stress.set_names, stress.sets.values(), strict=False)}
    found: list[Example] = []
    for set_name in about if params.report.examples else ():
        own, other = (_logits(rounds / who / "evaluated/predictions" / f"{set_name}.parquet") for who in (name, "teacher"))
        texts = pq.read_table(sets / f"{set_name}.parquet", columns=["text"])["text"].to_pylist()
        ordered = np.sort(other, axis=1)
        margins, chosen, teachers = ordered[:, -1] - ordered[:, -2], own.argmax(axis=1), other.argmax(axis=1)
        found += [
            Example(
                set=set_name,
                text=texts[row] if len(texts[row]) <= LONGEST else texts[row][: LONGEST - 1] + "\u2026",
                teacher=params.data.labels[int(teachers[row])],
                student=params.data.labels[int(chosen[row])],
                margin=float(margins[row]),
            )
            for row in np.flatnonzero(chosen != teachers)
        ]
    found.sort(key=lambda each: (-each["margin"], each["set"], each["text"]))
    return Elsewhere(about, found[: params.report.examples])


def _logits(path: Path) -> NDArray[np.float32]:
    """Return the logits of a model's predictions on a set, rows x classes."""
    table = pq.read_table(path)
    columns = sum(name.startswith("logit_") for name in table.column_names)
    return np.stack([table[f"logit_{number}"].to_numpy() for number in range(columns)], axis=1)


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
