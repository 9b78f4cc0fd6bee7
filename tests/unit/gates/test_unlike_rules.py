"""Rules on sets without labels, from stored predictions: proofs, patterns of sets, and what proves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.artifacts import NO_LABEL
from tasks.data.frames import rows_sha256
from tasks.gates.classification import gather
from tasks.gates.evidence import Model
from tasks.gates.judge import judge
from tasks.gates.rules import Rule
from tasks.gates.unlike import Hits, Values, of_mean, of_share
from tasks.measuring.predictions import write_predictions
from tasks.measuring.quality import Draws, measure_slices
from tasks.measuring.slices import masks_of
from tasks.measuring.unlabelled import calibrating_temperature, measure_unlike, unlike

DRAWS = Draws(200, 0.95, 0)
ROWS = 400
KINDS = ("handles", "emails")
Logits = dict[str, np.ndarray]


def margins(values: np.ndarray) -> np.ndarray:
    return np.stack([-values / 2.0, values / 2.0], axis=1).astype(np.float32)


def teacher_logits() -> Logits:
    rng = np.random.default_rng(0)
    found = {name: margins(rng.normal(size=ROWS) * 2.5) for name in ("validation", "stress_posts", "stress_news")}
    copies = [rng.normal(size=ROWS) * 2.5]
    copies += [copies[0] + rng.normal(size=ROWS) * 0.2 for _ in KINDS]
    return found | {"changed_validation": margins(np.concatenate(copies))}


def ids_of(name: str) -> list[str]:
    rows = [f"{i:016x}" for i in range(ROWS)]
    return rows if not name.startswith("changed") else [*rows, *(f"{row}:{kind}" for kind in KINDS for row in rows)]


def slices_of(name: str) -> list[list[str]]:
    if not name.startswith("changed"):
        return [["length:short" if i % 2 else "length:long"] for i in range(ROWS)]
    return [["as_written"]] * ROWS + [[f"change:{kind}"] for kind in KINDS for _ in range(ROWS)]


def frame_of_logits(ids: list[str], labels: np.ndarray, logits: np.ndarray, slices: list[list[str]]) -> pd.DataFrame:
    columns = {"row_id": ids, "label": labels, "prediction": logits.argmax(1), "logit_0": logits[:, 0], "logit_1": logits[:, 1]}
    return pd.DataFrame({**columns, "slices": slices})


def evaluated(folder: Path, who: str, logits: Logits, teacher: Logits) -> Model:
    """Store what a model said, and return its evaluation as its report has it."""
    chances = 1.0 / (1.0 + np.exp(teacher["validation"][:, 0] - teacher["validation"][:, 1]))
    labels = (np.random.default_rng(1).random(ROWS) < chances).astype(np.int64)
    temperature, sets = calibrating_temperature(teacher["validation"], labels), {}
    for name, values in logits.items():
        ids, slices = ids_of(name), slices_of(name)
        truth = labels if name == "validation" else np.full(len(ids), NO_LABEL)
        write_predictions(frame_of_logits(ids, truth, values, slices), folder / who, name)
        names = ["overall", *sorted({part for row in slices for part in row})]
        masks = masks_of(slices, names if not name.startswith("changed") else names[1:])
        if name == "validation":
            entry: dict[str, Any] = measure_slices(truth, values, teacher[name].argmax(1), masks, 10, DRAWS)
        else:
            compared = unlike(values, teacher[name], temperature, ids if name.startswith("changed") else ())
            entry = measure_unlike(compared, masks, DRAWS)
        sets[name] = {"rows": len(ids), "rows_sha256": rows_sha256(ids), "slices": entry}
    return Model(who, sets, folder / who)


def shifted(teacher: Logits, name: str, by: float, rows: slice = slice(None)) -> Logits:
    values = teacher[name].copy()
    values[rows] += np.array([-by / 2.0, by / 2.0], dtype=np.float32)
    return {**teacher, name: values}


def verdict(folder: Path, student: Logits, *rules: Rule, teacher: Logits | None = None) -> dict[str, Any]:
    teacher = teacher or teacher_logits()
    both = {who: evaluated(folder, who, logits, teacher) for who, logits in (("student", student), ("teacher", teacher))}
    return judge(rules, *gather(rules, both, 2, 10))


def rule(metric: str, on: str, bound: float, **more: Any) -> Rule:
    kind = "min" if metric == "agreement" else "max"
    test = None if metric in ("agreement", "flips", "confident_disagreement") else "paired_bootstrap"
    asked = {"confidence": 0.95, "test": test, "min_support": 100, "resamples": 1000, **more}
    return Rule(metric, on, "overall", None, kind, bound, "block", **asked)


CHANGES = {"slices": "change:*"}
HANDLES = slice(ROWS, 2 * ROWS)


@pytest.mark.parametrize(
    ("metric", "on", "bound", "more"),
    [
        ("agreement", "stress_posts", 0.85, {}),
        ("prior_gap", "stress_posts", 0.05, {}),
        ("expected_drop", "stress_posts", 0.05, {}),
        ("kl_nats_per_example", "stress_posts", 0.05, {}),
        ("confident_disagreement", "stress_posts", 0.04, {}),
        ("response_gap", "changed_validation", 0.25, CHANGES),
        ("flips", "changed_validation", 0.04, CHANGES),
        ("agreement", "stress_*", 0.85, {}),
        ("prior_gap", "stress_*", 0.05, {}),
    ],
)
def test_a_student_like_its_teacher_passes_and_one_that_drifts_fails(
    tmp_path: Path, metric: str, on: str, bound: float, more: dict[str, Any]
) -> None:
    asked, teacher = rule(metric, on, bound, **more), teacher_logits()
    assert verdict(tmp_path / "same", teacher, asked)["verdict"] == "pass"
    drifted = shifted(teacher, "changed_validation", -2.5, HANDLES) if more else shifted(teacher, "stress_posts", -2.5)
    found = verdict(tmp_path / "drifted", drifted, asked)["rules"][0]
    assert found["result"] == "fail"
    if more:
        assert found["worst_slice"] == "change:handles"
        assert {each["slice"]: each["result"] for each in found["slices"]}["change:emails"] == "pass"
    if on == "stress_*":
        assert found["worst_set"] == "stress_posts"
        assert {each["set"]: each["result"] for each in found["slices"]} == {"stress_posts": "fail", "stress_news": "pass"}


def test_what_is_kept_and_not_shown_is_held(tmp_path: Path) -> None:
    teacher = teacher_logits()
    some = shifted(teacher, "stress_posts", -30.0, slice(0, 120))
    agreement = float(np.mean(some["stress_posts"].argmax(1) == teacher["stress_posts"].argmax(1)))
    found = verdict(tmp_path, some, rule("agreement", "stress_posts", agreement - 0.01))["rules"][0]
    assert (found["result"], found["support"]) == ("hold", ROWS)
    assert found["low"] < agreement - 0.01 < found["value"] == pytest.approx(agreement)
    assert "is not shown" in found["sentence"]
    without = rule("agreement", "stress_posts", agreement - 0.01, confidence=None)
    assert verdict(tmp_path, some, without)["rules"][0]["result"] == "pass"
    broken = rule("agreement", "stress_posts", agreement + 0.01, prove="broken")
    assert verdict(tmp_path, some, broken)["rules"][0]["result"] == "pass"


def test_where_no_stress_set_is_given_it_is_said(tmp_path: Path) -> None:
    teacher = {"validation": teacher_logits()["validation"]}
    found = verdict(tmp_path, teacher, rule("agreement", "stress_*", 0.85), teacher=teacher)
    assert found["verdict"] == "hold"
    assert "nothing of another subject was measured" in found["rules"][0]["sentence"]


def test_a_set_that_the_student_leaves_out_holds_the_pattern(tmp_path: Path) -> None:
    student = {name: values for name, values in teacher_logits().items() if name != "stress_news"}
    found = verdict(tmp_path, student, rule("agreement", "stress_*", 0.5))["rules"][0]
    assert found["result"] == "hold"
    assert "has no set 'stress_news'" in found["sentence"]


@pytest.mark.parametrize("metric", ["agreement", "prior_gap", "expected_drop"])
def test_a_report_that_says_otherwise_than_the_predictions_is_held(tmp_path: Path, metric: str) -> None:
    teacher = teacher_logits()
    told = evaluated(tmp_path, "teacher", teacher, teacher)
    evaluated(tmp_path, "student", shifted(teacher, "stress_posts", -2.5), teacher)
    models = {"teacher": told, "student": Model("student", told.sets, tmp_path / "student")}
    asked = rule(metric, "stress_posts", 0.0 if metric == "agreement" else 1.0)
    found = judge([asked], *gather([asked], models, 2, 10))["rules"][0]
    assert found["result"] == "hold"
    assert "quality.json of student says" in found["sentence"]


def test_copies_without_their_rows_and_drops_without_validation_are_held(tmp_path: Path) -> None:
    teacher = teacher_logits()
    asked = rule("response_gap", "changed_validation", 0.25, **CHANGES)
    models = {who: evaluated(tmp_path, who, teacher, teacher) for who in ("student", "teacher")}
    for who in models:
        frame = frame_of_logits(
            ids_of("changed_validation")[1:],
            np.full(3 * ROWS - 1, NO_LABEL),
            teacher["changed_validation"][1:],
            slices_of("changed_validation")[1:],
        )
        write_predictions(frame, tmp_path / who, "changed_validation")
        entry = models[who].sets["changed_validation"]
        entry.update(rows=3 * ROWS - 1, rows_sha256=rows_sha256(ids_of("changed_validation")[1:]))
    found = judge([asked], *gather([asked], models, 2, 10))["rules"][0]
    assert found["result"] == "hold"
    assert "of which there are changed copies, is missing" in found["sentence"]
    drop = rule("expected_drop", "stress_posts", 0.5)
    (tmp_path / "teacher" / "validation.parquet").unlink()
    found = judge([drop], *gather([drop], models, 2, 10))["rules"][0]
    assert found["result"] == "hold"
    assert "which calibrate it" in found["sentence"]


def test_the_exact_bound_is_that_of_the_table() -> None:
    # Clopper and Pearson, one-sided 95 %: 1,000 rows of which 0.88 agree show 0.862
    found = of_share(Hits(1000, 880), 0.85, True, 0.95)
    assert found.low == pytest.approx(0.862, abs=5e-4)
    assert found.p_value < 0.01
    assert of_share(Hits(1000, 860), 0.85, True, 0.95).p_value > 0.05
    assert of_share(Hits(1000, 0), 0.04, False, 0.95).p_value < 1e-9
    assert not Hits(10, 11).possible


@pytest.mark.parametrize("classes", [2, 4])
def test_models_at_the_border_pass_as_seldom_as_promised(classes: int) -> None:
    """Of models whose largest gap is the bound, at most 5 in 100 are shown to keep it, with room for 100 draws."""
    rng, shown = np.random.default_rng(0), 0
    for seed in range(100):
        gaps = rng.normal(size=(250, classes)) * 0.3
        gaps -= gaps.mean(axis=1, keepdims=True)
        gaps[:, 0] += 0.05
        gaps[:, 1] -= 0.05
        found = of_mean(Values(gaps, widest=True), 0.05, 0.95, 400, seed)
        assert not isinstance(found, str)
        shown += found.p_value <= 0.05
    assert shown <= 11


def test_values_that_prove_nothing() -> None:
    assert "too few" in str(of_mean(Values(np.zeros((29, 1)), False), 0.1, 0.95, 1000, 0))
    assert "not finite" in str(of_mean(Values(np.full((50, 1), np.nan), False), 0.1, 0.95, 1000, 0))
    one = of_mean(Values(np.full((50, 1), -1.0), False), 0.1, 0.95, 1000, 0)
    assert not isinstance(one, str)
    assert (one.value, one.high, one.p_value) == (-1.0, -1.0, pytest.approx(1 / 1001))
