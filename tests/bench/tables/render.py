"""The measured cells as Markdown tables: every number with its interval, and better, worse or tie in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.tables.compare import Difference, accuracy_of, compared

Facts = Mapping[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def against(cells: Mapping[tuple[str, str], Facts], reference: str, seed: int, corner: str) -> str:
    """Return one row a cell, each compared with the cell of its group that is named `reference`, and a count of verdicts."""
    sets = list(next(iter(cells.values()))["right"])
    rows, verdicts = [], Counter[str]()
    for (group, name), facts in cells.items():
        rows.append([group, name, *_row(facts, sets)])
        if name == reference:
            continue
        found = compared(facts, cells[group, reference], seed)
        for place, key in enumerate(("kl", *sets), start=len(rows[-1]) - len(sets) - 1):
            rows[-1][place] += f" ({words(found[key], percent=key != 'kl')})"
            verdicts[f"{'KL' if key == 'kl' else 'accuracy'} {found[key].verdict}"] += 1
    head = [corner, "", "parameters", "before: KL", "KL to the teacher, nats", *(f"{name}, %" for name in sets)]
    counted = ", ".join(f"{verdicts[key]} {key}" for key in sorted(verdicts))
    return table(head, rows) + f"\nAgainst {reference}: {counted}.\n"


def _row(facts: Facts, sets: Sequence[str]) -> list[str]:
    before = f"{facts['before']['validation_kl_nats_per_example']:.3f}"
    accuracies = [f"{100 * accuracy_of(facts['right'][name]):.1f}" for name in sets]
    return [size(facts), before, f"{facts['validation_kl_nats_per_example']:.4f}", *accuracies]


def size(facts: Facts) -> str:
    """Return the parameters, and of masks the share that is zero with both denominators."""
    masks = facts.get("masks")
    if not masks:
        return f"{facts['params_total'] / 1e6:.2f} M"
    return (
        f"{facts['params_total'] / 1e6:.2f} M, zero: {100 * masks['sparsity_of_masked']:.0f} % of the masked "
        f"{masks['weights_masked'] / 1e6:.2f} M, {100 * masks['sparsity_of_total']:.0f} % of all"
    )


def words(one: Difference, *, percent: bool) -> str:
    """Return a difference with its interval and verdict, in points where it is one of accuracies."""
    scale, digits = (100, 1) if percent else (1, 4)
    value, low, high = (f"{scale * number:+.{digits}f}" for number in (one.value, one.low, one.high))
    return f"{value}, {low} to {high}: {one.verdict}"
