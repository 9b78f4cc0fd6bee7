"""Measures the cells of a table that are not in the file of results yet, then writes the table and its plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.progress import say
from tests.bench.tables import plot, render
from tests.bench.tables.cells import criteria_cells, curves_cells, masks_cells, rivals_cells
from tests.bench.tables.store import Results

TABLES: Final[dict[str, Any]] = {
    "criteria": criteria_cells, "curves": curves_cells, "masks": masks_cells, "rivals": rivals_cells,
}  # fmt: skip
Key = tuple[str, str]  # group, name
RESULTS_FILE: Final = "cells.jsonl"
METRICS: Final = {
    "validation_kl_nats_per_example": "KL(teacher || student) on validation, nats a row",
    "validation_accuracy": "accuracy on validation",
}


def measure(name: str, workspace: Path, folder: Path, rows: int) -> dict[str, Any]:
    """Return the cells of a table with their facts, and write NAME.md, of `curves` also curves.svg, into `folder`."""
    from tests.bench.tables.lab import measure_cell, open_lab

    folder = folder.resolve()
    if folder.is_relative_to(workspace.resolve()):
        raise UserError(f"--results {folder}: is inside the workspace, which stays as it is; choose a place outside")
    folder.mkdir(parents=True, exist_ok=True)
    lab, results = open_lab(workspace.resolve(), folder, rows), Results(folder / RESULTS_FILE)
    where, cells = lab.described(), TABLES[name]()
    found: dict[Key, dict[str, Any]] = {}
    for number, (key, cell) in enumerate(cells.items(), start=1):
        facts = results.get(cell.described(**where))
        if facts is None:
            say(f"{name}: cell {number} of {len(cells)}: {key}")
            facts = measure_cell(lab, cell)
            results.add(cell.described(**where), facts)
        found[key] = facts
    markdown = written(name, found, lab.params.seed)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    if name == "curves":
        (folder / "curves.svg").write_text(drawn(found), encoding="utf-8")
    return {"markdown": markdown, "cells": {", ".join(key): facts for key, facts in found.items()}}


def written(name: str, found: Mapping[Key, dict[str, Any]], seed: int) -> str:
    """Return the Markdown of a table: every cell against the first of its group."""
    return render.against(found, next(iter(found))[1], seed, "zero" if name == "masks" else "ratio")


def drawn(found: Mapping[Key, dict[str, Any]]) -> str:
    """Return the curves of every cell from before the first step on."""
    panels = {
        words: {
            name: [(0, facts["before"][metric]), *((point["step"], point[metric]) for point in facts["curve"])]
            for (_, name), facts in found.items()
        }
        for metric, words in METRICS.items()
    }
    return plot.curves(panels, "Ways to a student of the same shape")
