"""Which of several recorded evaluations a decision was made on."""

from __future__ import annotations

import pytest

from tasks.audit.decisions import Evaluation, _matching

READ = {"student/test.parquet": "aa"}
OLD = Evaluation({"run_id": "old"}, {"test.parquet": "aa"}, {"verdict": "fail", "rules": []})
NEW = Evaluation({"run_id": "new"}, {"test.parquet": "aa"}, {"verdict": "pass", "rules": []})
OTHER = Evaluation({"run_id": "other"}, {"test.parquet": "bb"}, {"verdict": "fail", "rules": []})


def decided(result: str) -> dict[str, object]:
    return {
        "kind": "promote",
        "verdict": {"rules": [{"metric": "weights", "result": "pass"}, {"metric": "round", "result": result}]},
    }


@pytest.mark.parametrize(("result", "evaluation"), [("fail", OLD), ("pass", NEW), ("hold", NEW)])
def test_a_decision_is_held_against_the_verdict_of_its_time(result: str, evaluation: Evaluation) -> None:
    assert _matching([OTHER, NEW, OLD], READ, "student", decided(result)) is evaluation
