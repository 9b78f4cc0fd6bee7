"""The report's section on training, of steps as a stage writes them."""

from __future__ import annotations

from typing import Any

from tasks.report.page import curves


def _models(**learnt: float) -> dict[str, Any]:
    measured = {"step": 9, "checkpoint": "step-000009", "validation_accuracy": 0.8, "validation_kl_nats_per_example": 0.098}
    student = {"steps": [{"step": 4, "loss": 0.5}, measured | learnt], "summary": {"best_checkpoint": "step-000009"}}
    return {"teacher": {"steps": [], "summary": {}}, "r1": student}


def test_it_says_how_near_a_student_is_on_rows_that_it_learnt_from() -> None:
    page = curves(_models(learnt_kl_nats_per_example=0.0284))
    assert page.count("KL to the teacher 0.098 on validation, 0.028 on rows it learnt from") == 1


def test_runs_of_before_that_was_measured_have_the_curves_alone() -> None:
    page = curves(_models())
    assert page.count("<figure>") == 2
    assert "learnt from" not in page
