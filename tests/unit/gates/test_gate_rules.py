"""Rules of params.yaml that ask for nothing, for two things, or for something nobody measures: refused, with a hint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ParamsError
from tasks.gates.rules import CHECKS
from tasks.params.file import check_params, read_yaml

VALUES = read_yaml(Path(__file__).parents[3] / "params.yaml")
TEST: dict[str, Any] = {"metric": "accuracy", "set": "test"}
PROVEN = {**TEST, "versus": "teacher", "max_drop": 0.04, "test": "mcnemar", "confidence": 0.95, "min_support": 200}


def check(gate: dict[str, Any], where: str = "gates") -> None:
    values = copy.deepcopy(VALUES)
    if where == "gates":
        values["gates"] = [gate]
    else:
        values["promotion"]["gates"] = [gate]
    check_params(values, "params.yaml")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gates", {"metric": "acuracy", "set": "test", "min": 0.8}, "did you mean 'accuracy'?"),
    ("gates", {"metric": "accuracy", "set": "test_typo", "min": 0.8}, "did you mean 'test_typos'?"),
    ("gates", {**TEST, "min": 0.8, "max": 0.9}, "exactly one of min, max"),
    ("gates", TEST, "exactly one of min, max"),
    ("gates", {**TEST, "min": 0.8, "versus": "teacher"}, "min takes no `versus`"),
    ("gates", {**TEST, "min_ratio": 0.8}, "min_ratio needs `versus`"),
    ("gates", {**TEST, "min_ratio": 0.8, "versus": "parnet"}, "did you mean 'parent'?"),
    ("gates", {**TEST, "max_drop": 0.1, "versus": "champion"}, "ask `versus: champion` in promotion.gates"),
    ("gates", {**TEST, "mn": 0.8}, "gates.0.mn: unknown key; did you mean 'min'?"),
    ("gates", {"metric": "params_total", "set": "test", "max": 5}, "takes no `set`"),
    ("gates", {"metric": "accuracy", "min": 0.8}, "needs `set`"),
    ("gates", {"metric": "params_total", "max": 5, "min_support": 5}, "is not measured on rows"),
    ("gates", {**PROVEN, "min_support": None}, "`min_support` is needed"),
    ("gates", {**PROVEN, "confidence": None}, "need each other"),
    ("gates", {**PROVEN, "max_drop": 2.0}, "is a share of rows"),
    ("gates", {**PROVEN, "max_drop": float("nan")}, "finite"),
    ("gates", {**PROVEN, "resamples": 5000}, "belongs to test: paired_bootstrap"),
    ("gates", {**TEST, "min": 0.8, "prove": "broken"}, "`prove` says what"),
    ("gates", {**TEST, "slice": "negation", "slices": "class:*", "min": 0.8, "min_support": 5}, "give one of them"),
    ("gates", {"metric": "churn", "set": "test", "max": 0.2}, "it needs `versus` and `max`"),
    ("gates", {"check": "no_overlp"}, "did you mean 'no_overlap'?"),
    ("gates", {"check": "no_overlap", "set": "test"}, "set would change nothing"),
    ("gates", {"check": "no_overlap", "max": 0.1, "versus": "teacher"}, "max, versus would change nothing"),
    ("gates", {"check": "no_overlap", "metric": "accuracy"}, "either `metric` or `check`"),
    ("gates", {"severity": "warn"}, "either `metric` or `check`"),
    ("gates", {"check": "no_overlap", "severity": "warning"}, "did you mean 'warn'?"),
    ("gates", {"check": "serves"}, "gates.0.check: serves is asked in promotion.gates"),
    ("promotion.gates", {"check": "no_overlap"}, "promotion.gates.0.check: no_overlap is asked in gates"),
    ("promotion.gates", {**TEST, "max_drop": 0.1, "versus": "parent"}, "parent are asked in gates"),
    ("promotion.gates", {"metric": "golden_max_difference", "max": 1e-4}, "differences of exports are asked in gates"),
]


@pytest.mark.parametrize(("where", "gate", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_a_rule_that_cannot_be_meant_is_refused(where: str, gate: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError) as told:
        check(gate, where)
    assert words in str(told.value)
    assert str(told.value).startswith("params.yaml: ")


@pytest.mark.parametrize(("name", "where"), CHECKS.items())
def test_every_check_can_be_asked_in_its_place(name: str, where: str) -> None:
    check({"check": name}, where)
    check({"check": name, "severity": "warn"}, where)


@pytest.mark.parametrize("change", [{"of": "tset", "word_share": 0.1}, {"of": "test", "word_share": 0.0}])
def test_typos_need_a_set_and_a_share(change: dict[str, Any]) -> None:
    values = copy.deepcopy(VALUES)
    values["data"]["typos"] = change
    with pytest.raises(ParamsError, match=r"did you mean 'test'\?|greater than 0"):
        check_params(values, "params.yaml")


def test_without_typos_there_is_no_such_set() -> None:
    values = copy.deepcopy(VALUES)
    values["data"]["typos"] = None
    with pytest.raises(ParamsError, match="'test_typos' is not one of validation, test, imdb"):
        check_params(values, "params.yaml")
    values["gates"] = [{"check": "no_overlap"}]
    assert check_params(values, "params.yaml").data.measured_sets == ["validation", "test", "imdb"]
