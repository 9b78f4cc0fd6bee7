"""What a gate takes from cost.json: counts as they are, latencies as ratios to the teacher beside which they were measured."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tasks.gates.costs import LATENCY, cost_evidence, parity_evidence
from tasks.gates.judge import judge
from tasks.gates.rules import Rule

FASTER = Rule(LATENCY, None, "overall", "parent", "max_ratio", 0.8, "block")


def cost(mine: Any, teacher: Any, ratio: Any = None) -> dict[str, Any]:
    ratio = mine / teacher if ratio is None else ratio
    times = {"latency_ms_p50": mine, "teacher_latency_ms_p50": teacher, "ratio_p50": ratio}
    return {"params_total": 10, "latency": {"torch": {"1": times}}}


def test_a_slow_day_does_not_make_a_round_faster_than_its_parent() -> None:
    # The parent was measured while the machine was busy: its 12 ms are half its teacher's, like the student's 6 ms.
    found = cost_evidence({"student": cost(6.0, 12.0), "parent": cost(12.0, 24.0), "teacher": cost(30.0, 30.0)})
    assert found["parent", LATENCY, None, "overall"].value == 6.0
    assert found["teacher", LATENCY, None, "overall"].value == 12.0
    one = judge([FASTER], found)["rules"][0]
    assert (one["result"], one["value"]) == ("fail", 1.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf, "0.5", [1], True])
def test_a_broken_ratio_is_a_hold(broken: Any) -> None:
    found = cost_evidence({"student": cost(6.0, 12.0), "parent": cost(12.0, 24.0, broken)})
    assert judge([FASTER], found)["verdict"] == "hold"


def test_without_costs_there_is_nothing_to_judge() -> None:
    assert judge([FASTER], cost_evidence({}))["verdict"] == "hold"
    assert judge([FASTER], cost_evidence({"student": {}, "parent": cost(1.0, 2.0)}))["verdict"] == "hold"
    assert judge([FASTER], cost_evidence({"student": cost(1.0, 2.0)}))["verdict"] == "hold"


def test_differences_of_exports_are_the_students_own() -> None:
    found = parity_evidence({"golden_max_difference": 1e-7, "onnx_max_difference": 2e-6})
    assert found["student", "golden_max_difference", None, "overall"].value == 1e-7
    assert found["student", "load_back_max_difference", None, "overall"].value is None
