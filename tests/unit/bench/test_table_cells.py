"""The tables of comparisons: arithmetic of the intervals, words of the verdicts, and results that survive a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from tests.bench.tables import plot, render
from tests.bench.tables.cells import Cell, criteria_cells, curves_cells, masks_cells, rivals_cells
from tests.bench.tables.compare import Difference, accuracy_difference, accuracy_of, kl_difference
from tests.bench.tables.store import Results


def test_a_cell_is_found_again_and_half_a_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.jsonl"
    first, second = Cell({"ratio": 8.0}).described(seed=0), Cell({"ratio": 4.0}).described(seed=0)
    Results(path).add(first, {"right": {"test": "01"}})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"cell": {"target": {"ra')
    again = Results(path)
    assert again.get(first) == {"right": {"test": "01"}}
    assert again.get(second) is None
    assert again.get({**first, "seed": 1}) is None
    again.add(second, {"right": {"test": "11"}})
    assert Results(path).get(second) == {"right": {"test": "11"}}


def test_differences_pair_the_rows() -> None:
    rng = np.random.default_rng(0)
    reference = "".join(map(str, rng.integers(0, 2, 400)))
    better = "1" * 40 + reference[40:]
    found = accuracy_difference(better, reference, 0)
    assert found.value == pytest.approx(accuracy_of(better) - accuracy_of(reference))
    assert found.verdict == "better"
    assert accuracy_difference(reference, better, 0).verdict == "worse"
    same = accuracy_difference(reference, reference, 0)
    assert (same.value, same.verdict) == (0.0, "tie")


def test_less_kl_is_better_and_an_interval_that_holds_zero_is_a_tie() -> None:
    rng = np.random.default_rng(0)
    reference = rng.random(300)
    assert kl_difference(list(reference - 0.05), list(reference), 0).verdict == "better"
    noise = rng.normal(0, 1, 300)
    assert kl_difference(list(reference + noise - noise.mean()), list(reference), 0).verdict == "tie"


def test_words_tell_points_and_nats() -> None:
    one = Difference(-0.0213, -0.035, -0.004)
    assert render.words(one, percent=True) == "-2.1, -3.5 to -0.4: worse"
    assert render.words(one, percent=False) == "-0.0213, -0.0350 to -0.0040: worse"


def facts(right: str, kl: float, masks: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "right": {"validation": right},
        "validation_kl_nats": [kl] * len(right),
        "params_total": 2_000_000,
        "validation_kl_nats_per_example": kl,
        "before": {"validation_kl_nats_per_example": 0.5},
        "masks": masks,
    }


def test_each_group_is_compared_with_its_own_reference() -> None:
    zero = {"sparsity_of_masked": 0.5, "weights_masked": 1_000_000, "sparsity_of_total": 0.25}
    found = render.against(
        {
            ("2x", "ours"): facts("1" * 50, 0.1),
            ("2x", "theirs"): facts("0" * 50, 0.2),
            ("4x", "ours"): facts("0" * 50, 0.2, zero),
            ("4x", "theirs"): facts("1" * 50, 0.2),
        },
        "ours",
        0,
        "ratio",
    )
    lines = found.splitlines()
    assert "| 2x | theirs | 2.00 M | 0.500 | 0.2000 (+0.1000, +0.1000 to +0.1000: worse) | 0.0 (-100.0," in lines[3]
    assert "zero: 50 % of the masked 1.00 M, 25 % of all" in lines[4]
    assert "100.0 (+100.0," in lines[5]
    assert lines[-1] == "Against ours: 1 KL tie, 1 KL worse, 1 accuracy better, 1 accuracy worse."


def test_the_plot_is_xml_with_a_line_a_student_and_panel() -> None:
    lines = {"a & b": [(0, 0.5), (10, 0.1)], "c": [(0, 0.4), (10, 0.2)]}
    drawn = fromstring(plot.curves({"KL": lines, "accuracy": lines}, "Ways"))
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}polyline")) == 4
    assert drawn.get("viewBox", "").startswith("0 0 720")


def test_cells_of_a_group_differ_in_one_thing_alone() -> None:
    for cells in (criteria_cells(), masks_cells()):
        for (group, name), cell in cells.items():
            others = [one for (other, _), one in cells.items() if other == group]
            assert {**cell.target, "criterion": None} == {**others[0].target, "criterion": None}
            assert cell.target["criterion"] == name
    curves = list(curves_cells().values())
    assert curves[0] == criteria_cells()["8x", "activation"]
    assert curves[1] == criteria_cells()["8x", "random"]
    assert len({str(cell) for cell in rivals_cells().values()}) == 16
