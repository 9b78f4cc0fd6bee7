"""All faults of params.yaml are said at once: those within sections, and those between the sections that have none."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ParamsError
from tasks.params.file import check_params, read_yaml

SHIPPED = read_yaml(Path(__file__).parents[3] / "params.yaml")


def lines_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ParamsError) as refused:
        check_params(values, "params.yaml")
    return str(refused.value).splitlines()


def test_faults_within_and_between_sections_are_said_together() -> None:
    values = deepcopy(SHIPPED)
    values["sede"] = values.pop("seed")
    values["distill"]["temperature"] = 0.0
    values["data"]["max_tokens"] = "many"
    values["rounds"]["r2"]["parent"] = "r9"
    values["rounds"]["r3"]["heads"] = 5
    values["baselines"]["random_init"] = ["r7"]
    values["trials"]["rounds"] = ["r1"]
    lines = lines_of(values)
    assert all(line.startswith("params.yaml: ") for line in lines)
    faults = ("seed: missing", "sede: unknown key", "distill.temperature: got 0.0", "data.max_tokens: got 'many'")
    between = (
        "rounds.r2.parent: 'r9'",
        "rounds.r3.heads: 5 does not divide",
        "random_init: 'r7' is not a round",
        "trials: DVC makes",
    )
    missing = [fault for fault in (*faults, *between) if sum(fault in line for line in lines) != 1]
    assert missing == []
    assert len(lines) == len(faults) + len(between)


def test_every_rule_that_nothing_can_answer_is_named() -> None:
    values = deepcopy(SHIPPED)
    values["gates"][0:0] = [{"metric": "accuracy", "set": "tset", "versus": "teacher", "min_ratio": 0.9}, {"check": "lineage"}]
    lines = lines_of(values)
    assert [line.split(": ")[1] for line in lines] == ["gates.0.set", "gates.1.check"]


def test_a_section_with_a_fault_of_its_own_is_not_compared_with_others() -> None:
    values = deepcopy(SHIPPED)
    values["data"]["labels"] = {0: "negative"}  # whether gates name its sets cannot be said now
    values["gates"][0]["set"] = "tset"
    assert len(lines_of(values)) == 1
