"""What somebody in a hurry, or with a bad day, may hand to a gate, and the verdict it must give: a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.evaluation.evidence import Model, gather
from tasks.evaluation.gates import judge
from tasks.evaluation.quality import accuracy
from tasks.evaluation.rules import Measurement, Rule

ROWS = 400
PROVEN = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.04, "block", None, "paired_bootstrap", 0.95,
              min_support=200)  # fmt: skip
EXACT = replace(PROVEN, test="mcnemar")
CHAMPION = replace(PROVEN, versus="champion")
SLICES = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.08, "block", "class:*", min_support=100)
SHOWN_SLICES = replace(SLICES, test="paired_bootstrap", confidence=0.95, threshold=0.12)
CHURN = Rule("churn", "test", "overall", "teacher", "max", 0.15, "block")
PLAIN = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.04, "block")
CALIBRATION = Rule("calibration_error", "test", "overall", None, "max", 0.5, "block")


@dataclass
class Case:
    """Evaluations as they are found: predictions and what quality.json says, and the rules that are asked."""

    rules: list[Rule]
    frames: dict[str, pd.DataFrame]
    reports: dict[str, Any] = field(default_factory=dict)
    extra: dict[Any, Measurement] = field(default_factory=dict)


def frame(lost: int, gained: int) -> pd.DataFrame:
    """Return predictions that lose and gain rows against a teacher that is right on the first 320 of 400 rows."""
    number = np.arange(ROWS)
    label = number % 2
    right = number < 320
    right[:lost] = False
    right[ROWS - gained :] = True
    prediction = np.where(right, label, 1 - label)
    logits = np.where(prediction[:, None] == [0, 1], 1.0, -1.0).astype(np.float32)
    slices = [["class:positive" if one else "class:negative", *(["rare"] if row < 20 else [])]
              for row, one in enumerate(label)]  # fmt: skip
    return pd.DataFrame({"row_id": [f"{row:016x}" for row in number], "label": label, "prediction": prediction,
                         "logit_0": logits[:, 0], "logit_1": logits[:, 1], "slices": slices})  # fmt: skip


def report(of: pd.DataFrame) -> dict[str, Any]:
    slices = {}
    for name in ("overall", "class:negative", "class:positive", "rare"):
        rows = of[[name == "overall" or name in names for names in of["slices"]]]
        value = accuracy(rows["label"].to_numpy(), rows["prediction"].to_numpy()) if len(rows) else 0.0
        slices[name] = {"support": len(rows), "accuracy": {"value": value}}
    return {"test": {"rows": len(of), "rows_sha256": "a" * 64, "slices": slices}}


def honest(*rules: Rule, lost: int = 8, gained: int = 8) -> Case:
    frames = {"student": frame(lost, gained), "teacher": frame(0, 0), "champion": frame(2, 2)}
    return Case(list(rules), frames, {who: report(one) for who, one in frames.items()})


def verdict(case: Case, folder: Path) -> dict[str, Any]:
    models = {}
    for who, sets in case.reports.items():
        place = folder / who
        place.mkdir()
        if who in case.frames:
            case.frames[who].to_parquet(place / "test.parquet", index=False)
        models[who] = Model(who, sets, place)
    evidence, pairs, names = gather(case.rules, models, 2, 15)
    return judge(case.rules, {**evidence, **case.extra}, pairs, names)


def change(who: str, edit: Callable[[pd.DataFrame], pd.DataFrame], *rules: Rule) -> Callable[[], Case]:
    """Return a case in which one file of predictions is not what it was; quality.json tells of the honest one."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        case.frames[who] = edit(case.frames[who])
        return case

    return made


def told(who: str, edit: Callable[[dict[str, Any]], Any], *rules: Rule) -> Callable[[], Case]:
    """Return a case in which a quality.json is not what it was."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        edit(case.reports[who])
        return case

    return made


def without(who: str, what: str, *rules: Rule) -> Callable[[], Case]:
    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        del getattr(case, what)[who]
        return case

    return made


def cell(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def edit(of: pd.DataFrame) -> pd.DataFrame:
        values = of[column].tolist()
        values[5] = value
        return of.assign(**{column: values})

    return edit


def both(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[], Case]:
    """Return a case in which every side was changed alike, reports too: the sides agree, and are still wrong."""

    def made() -> Case:
        case = honest(PROVEN)
        case.frames = {who: edit(one) for who, one in case.frames.items()}
        case.reports = {who: report(one) for who, one in case.frames.items()}
        return case

    return made


def told_value(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda sets: sets["test"]["slices"]["overall"]["accuracy"].update(value=value)


def cut(of: pd.DataFrame) -> pd.DataFrame:
    return of.iloc[:0]


TABLE: list[tuple[str, Callable[[], Case], str, str]] = [
    # honest evidence
    ("equal model", lambda: honest(PROVEN), "pass", "no worse than 1.8 points below"),
    ("equal model, exact", lambda: honest(EXACT), "pass", "no worse than"),
    ("same predictions", lambda: honest(PROVEN, lost=0, gained=0), "pass", "0 lost, 0 gained"),
    ("much better model", lambda: honest(PROVEN, lost=0, gained=40), "pass", "10.0 points above"),
    ("worse than allowed", lambda: honest(PROVEN, lost=24, gained=4), "fail", "5.0 points below"),
    ("worse than allowed, exact", lambda: honest(EXACT, lost=24, gained=4), "fail", "5.0 points below"),
    ("kept, not shown", lambda: honest(PROVEN, lost=24, gained=12), "hold", "which does not show"),
    ("kept, not shown, exact", lambda: honest(EXACT, lost=24, gained=12), "hold", "which does not show"),
    ("not shown is no harm", lambda: honest(replace(PROVEN, prove="broken"), lost=24, gained=4), "pass", "no better"),
    ("harm is shown", lambda: honest(replace(PROVEN, prove="broken"), lost=60, gained=0), "fail", "no better than"),
    ("against the champion", lambda: honest(CHAMPION), "pass", "the champion's"),
    ("worse than the champion", lambda: honest(CHAMPION, lost=40, gained=0), "fail", "the champion's"),
    ("churn", lambda: honest(CHURN), "pass", "16 of 400 rows, 4.0 %"),
    ("churn of an equal model", lambda: honest(CHURN, lost=40, gained=40), "fail", "80 of 400 rows, 20.0 %"),
    ("churn not shown", lambda: honest(replace(CHURN, confidence=0.95), lost=28, gained=28), "hold", "not shown"),
    ("slices", lambda: honest(SLICES), "pass", "2 kept of 2 slices"),
    ("slices with proof", lambda: honest(SHOWN_SLICES), "pass", "2 kept of 2 slices"),
    ("slices with proof, too strict", lambda: honest(replace(SHOWN_SLICES, threshold=0.02)), "hold", "2 undecided"),
    # a bad number
    ("accuracy told as NaN", told("student", told_value(math.nan)), "hold", "says nan"),
    ("accuracy told as infinity", told("student", told_value(math.inf)), "hold", "says inf"),
    ("accuracy told as text", told("student", told_value("0.8")), "hold", "says '0.8'"),
    ("accuracy told as nothing", told("student", told_value(None)), "hold", "says None"),
    ("accuracy told too high", told("student", told_value(0.95)), "hold", "says 0.95"),
    ("teacher told too low", told("teacher", told_value(0.5)), "hold", "quality.json of teacher says 0.5"),
    ("champion told too low", told("champion", told_value(0.5), CHAMPION), "hold", "quality.json of champion says"),
    ("logit NaN", change("student", cell("logit_0", math.nan)), "hold", "finite logits"),
    ("logit infinite", change("student", cell("logit_1", math.inf)), "hold", "finite logits"),
    ("threshold NaN", lambda: honest(replace(PROVEN, threshold=math.nan)), "hold", "is not a finite number"),
    ("churn threshold NaN", lambda: honest(replace(CHURN, threshold=math.nan)), "hold", "is not a finite number"),
    # missing
    ("no student predictions", without("student", "frames"), "hold", "there are no predictions"),
    ("no teacher predictions", without("teacher", "frames"), "hold", "there are no predictions"),
    ("no teacher at all", without("teacher", "reports"), "hold", "there is no evaluation of the teacher"),
    ("champion deleted", without("champion", "reports", CHAMPION), "hold", "no evaluation of the champion"),
    ("champion's churn unknown", without("champion", "frames", replace(CHURN, versus="champion")), "hold", "no predictions"),
    ("no such set", told("student", lambda sets: sets.pop("test")), "hold", "has no set 'test'"),
    ("no rows digest", told("student", lambda sets: sets["test"].pop("rows_sha256")), "hold", "no rows_sha256"),
    ("slice left out of the report", told("student", lambda sets: sets["test"]["slices"].pop("class:positive"), SLICES),
     "hold", "says None"),
    ("no slice matches", lambda: honest(replace(SLICES, slices="topic:*")), "hold", "no slice is called"),
    ("slice without rows", lambda: honest(replace(PROVEN, slice="nowhere")), "hold", "no"),
    ("nothing asked", lambda: honest(), "hold", "nothing is proven"),
    ("only warnings asked", lambda: honest(replace(PROVEN, severity="warn")), "hold", "nothing is proven"),
    # too few
    ("empty predictions", both(cut), "hold", "are empty"),
    ("too little support", lambda: honest(replace(PROVEN, slice="rare")), "hold", "20 rows are too few"),
    ("too little support, plain rule", lambda: honest(replace(PLAIN, slice="rare", min_support=30)), "hold",
     "20 rows are too few"),
    ("one slice with too little support", lambda: honest(replace(SLICES, slices="*")), "hold", "1 undecided of 3"),
    # other rows
    ("other order", change("student", lambda of: of.iloc[::-1]), "hold", "different rows"),
    ("a row left out", change("student", lambda of: of.iloc[1:]), "hold", "different rows"),
    ("another set", told("student", lambda sets: sets["test"].update(rows_sha256="b" * 64)), "hold", "different rows"),
    ("champion of another set", told("champion", lambda sets: sets["test"].update(rows_sha256="b" * 64), CHAMPION),
     "hold", "champion and the teacher were measured on different rows"),
    ("duplicate ids", both(cell("row_id", f"{6:016x}")), "hold", "counts more than once"),
    ("easy rows twice", both(lambda of: pd.concat([of, of.iloc[:100]])), "hold", "counts more than once"),
    # changed rows
    ("labels made to fit", change("student", lambda of: of.assign(label=of["prediction"])), "hold", "different labels"),
    ("predictions made to fit", change("student", lambda of: of.assign(prediction=of["label"])), "hold", "not the largest"),
    ("label out of range", both(cell("label", 7)), "hold", "none of the 2 classes"),
    ("label of unlabelled text", both(cell("label", -1)), "hold", "none of the 2 classes"),
    ("one logit too few", change("student", lambda of: of.drop(columns="logit_1")), "hold", "finite logits"),
    ("hard rows moved out of a slice", change("student", cell("slices", ["class:negative"]), SLICES), "hold",
     "different slices"),
    ("a column of the wrong type", change("student", lambda of: of.assign(label=of["label"].astype(str))), "hold",
     "different labels"),
    ("a column missing", change("student", lambda of: of.drop(columns="prediction")), "hold", "there are no predictions"),
]  # fmt: skip


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 40
    assert len({name for name, *_ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("make", "expected", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_verdict(make: Callable[[], Case], expected: str, words: str, tmp_path: Path) -> None:
    case = make()
    found = verdict(case, tmp_path)
    said = [found["sentence"], *[one["sentence"] for one in found["rules"]]]
    assert found["verdict"] == expected, said
    assert any(words in one for one in said), said
    for one in found["rules"]:
        assert one["result"] != "hold" or one["severity"] == "warn" or found["verdict"] != "pass"


def test_a_file_that_is_no_parquet_is_a_hold(tmp_path: Path) -> None:
    case = honest(PROVEN)
    (tmp_path / "student").mkdir()
    (tmp_path / "student/test.parquet").write_bytes(b"PAR1 not really")
    case.frames["teacher"].to_parquet(tmp_path / "test.parquet", index=False)
    models = {"student": Model("student", case.reports["student"], tmp_path / "student"),
              "teacher": Model("teacher", case.reports["teacher"], tmp_path)}  # fmt: skip
    evidence, pairs, names = gather(case.rules, models, 2, 15)
    assert judge(case.rules, evidence, pairs, names)["verdict"] == "hold"
