"""Measures the cells of a table that are not in the file of results yet, then writes the table and its plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tasks.errors import UserError
from tasks.params.causal_lm import CausalLMParams
from tasks.params.file import load_params
from tasks.progress import say
from tasks.training.metrics import BLOCKS_NLL as NATS
from tests.bench.tables import blocks, lab, plot, render
from tests.bench.tables.cells import Cell, criteria_cells, curves_cells, masks_cells, rivals_cells
from tests.bench.tables.store import Results

Key = tuple[str, str]  # group, name
Facts = dict[str, Any]
TABLES: Final[dict[str, Callable[[], dict[Key, Cell]]]] = {
    "criteria": criteria_cells,
    "curves": curves_cells,
    "masks": masks_cells,
    "rivals": rivals_cells,
}
RESULTS_FILE: Final = "cells.jsonl"
METRICS: Final = {
    "validation_kl_nats_per_example": "KL(teacher || student) on validation, nats a row",
    "validation_accuracy": "accuracy on validation",
}
BLOCK_METRICS: Final = {NATS: "nats a token on validation"}


def measure(name: str, workspace: Path, folder: Path, rows: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """Return the cells of a table with their facts, and write its Markdown and the plot of curves into `folder`.

    `rows` are the transfer rows that a cell learns from, or the blocks where the run is of a language model;
    with `only`, those groups of cells alone are measured.
    """
    folder, workspace = folder.resolve(), workspace.resolve()
    if folder.is_relative_to(workspace):
        raise UserError(f"--results {folder}: is inside the workspace, which stays as it is; choose a place outside")
    folder.mkdir(parents=True, exist_ok=True)
    params = load_params(workspace / "params.yaml")
    if not isinstance(params, CausalLMParams):
        opened = lab.open_lab(workspace, folder, rows)
        chosen = _chosen(name, TABLES[name](), only)
        found = _cells(name, folder, chosen, opened.described(), lambda cell: lab.measure_cell(opened, cell))
        corner = "zero" if name == "masks" else "ratio"
        markdown = render.against(found, next(iter(found))[1], params.seed, corner)
        return _kept(name, folder, found, markdown, METRICS)
    if name != "curves":
        raise UserError(f"{name}: is a table of classifiers; of a language model there is curves")
    held = blocks.BlockLab(params, workspace / "artifacts", folder, rows)
    cells = blocks.cells_of(params, held.artifacts)
    found = _cells(name, folder, cells, held.described(), lambda cell: blocks.measure_cell(held, cell))
    return _kept("curves_blocks", folder, found, blocks.written(found, params.seed), BLOCK_METRICS)


def _chosen(name: str, cells: dict[Key, Cell], only: Sequence[str]) -> dict[Key, Cell]:
    """Return the cells of some groups, all without one; UserError when there is no such group."""
    groups = list(dict.fromkeys(group for group, _ in cells))
    unknown = sorted(set(only) - set(groups))
    if unknown:
        raise UserError(f"--only {unknown[0]}: no such cells in {name}; there are {', '.join(groups)}")
    return {key: cell for key, cell in cells.items() if not only or key[0] in only}


def _cells(
    name: str, folder: Path, cells: Mapping[Key, Cell], where: Facts, measure_cell: Callable[[Cell], Facts]
) -> dict[Key, Facts]:
    """Return the facts of every cell, of those from the file of results that are there."""
    results, found = Results(folder / RESULTS_FILE), {}
    for number, (key, cell) in enumerate(cells.items(), start=1):
        facts = results.get(cell.described(**where))
        if facts is None:
            say(f"{name}: cell {number} of {len(cells)}: {', '.join(key)}")
            facts = measure_cell(cell)
            results.add(cell.described(**where), facts)
        found[key] = facts
    return found


def _kept(name: str, folder: Path, found: Mapping[Key, Facts], markdown: str, metrics: Mapping[str, str]) -> Facts:
    """Write the table, and the plot where it is one of curves, and return what a program wants."""
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    if name.startswith("curves"):
        (folder / f"{name}.svg").write_text(drawn(found, metrics), encoding="utf-8")
    return {"markdown": markdown, "cells": {", ".join(key): facts for key, facts in found.items()}}


def drawn(found: Mapping[Key, Facts], metrics: Mapping[str, str]) -> str:
    """Return the curves of every cell from before the first step on."""
    panels = {
        words: {
            name: [(0, facts["before"][metric]), *((point["step"], point[metric]) for point in facts["curve"])]
            for (_, name), facts in found.items()
        }
        for metric, words in metrics.items()
    }
    return plot.curves(panels, "Ways to a student of the same shape")
