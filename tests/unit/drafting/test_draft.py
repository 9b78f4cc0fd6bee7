"""A draft is a params.yaml that the schema takes, reads back as it was written, and asks for no more than its rows can show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tasks.drafting.draft import DISAGREEMENT, Wanted, draft, provable_drop, ratios
from tasks.drafting.facts import RowFacts, TeacherFacts
from tasks.drafting.written import flow, text_of
from tasks.params.file import load_text
from tests.conftest import tiny_config

TEACHER = TeacherFacts("path:teacher", tiny_config(200), 64, False, True, 0.03)
WANTED = Wanted("path:rows.csv", {"text": "text", "label": "label", "source": None, "split": None}, "rows", 5.0)


def rows(train: int, least: int) -> RowFacts:
    def counts(total: int, rare: int) -> dict[str, int]:
        return {"no": total - rare, "yes": rare}

    sets = {"train": counts(train, least * 6), "validation": counts(train // 6, least), "test": counts(train // 6, least)}
    every = {name: sum(each[name] for each in sets.values()) for name in ("no", "yes")}
    return RowFacts(every, sets, 0.02, 0.0, (20, 40, 60), (3, 30), 1.3, 400)


@pytest.mark.parametrize("ratio", [1.5, 2.0, 5.0, 12.0, 40.0])
@pytest.mark.parametrize(("train", "least"), [(60, 1), (600, 20), (100_000, 4000)])
def test_every_draft_describes_a_run(ratio: float, train: int, least: int) -> None:
    made = draft(replace(WANTED, ratio=ratio), rows(train, least), TEACHER)
    params = load_text(text_of(made, ["head"]), "params.yaml")
    dumped = params.model_dump(mode="json")
    assert list(dumped["rounds"])[-1] == f"r{len(ratios(ratio))}"
    test_rows = train // 6
    for gate in [*dumped["gates"], *dumped["promotion"]["gates"]]:
        if gate["severity"] == "block" and gate["confidence"]:
            assert gate["min_support"] <= test_rows
            assert gate["max_drop"] >= provable_drop(test_rows) - 1e-9
    assert any("the test set has" in warning for warning in made.warnings) is (test_rows < 200)


def test_a_teacher_that_answers_the_classes_is_taken_as_it_is() -> None:
    made = draft(WANTED, rows(600, 20), replace(TEACHER, answers=True)).values()
    assert made["teacher"]["epochs"] == 0


def test_long_texts_cost_no_more_than_short_ones() -> None:
    short, long = (
        draft(WANTED, replace(rows(2000, 50), tokens=(half, 2 * half, 3 * half)), replace(TEACHER, positions=512)).values()
        for half in (20, 400)
    )
    assert short["teacher"]["epochs"] > long["teacher"]["epochs"]
    assert short["data"]["transfer"]["spliced_rows"] > 5 * long["data"]["transfer"]["spliced_rows"]


def test_an_equal_model_passes_nine_times_in_ten() -> None:
    rng = np.random.default_rng(0)
    for count in (200, 1000):
        differences = rng.choice([-1, 0, 1], p=[DISAGREEMENT / 2, 1 - DISAGREEMENT, DISAGREEMENT / 2], size=(4000, count))
        bound = differences.mean(axis=1) - 1.645 * differences.std(axis=1) / np.sqrt(count)
        assert (bound > -provable_drop(count)).mean() >= 0.89


texts = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\x85\u2028\u2029\ufeff"), max_size=12)
plain = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(1e-9, 1e9) | texts


@given(st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6))
def test_values_are_read_as_they_were(value: Any) -> None:
    assert YAML(typ="safe").load(f"key: {flow(value)}\n")["key"] == value
