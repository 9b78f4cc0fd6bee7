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

from tasks.gates.classification import gather
from tasks.gates.evidence import Model
from tasks.gates.judge import judge
from tasks.gates.rules import CHECKS, Asked, Measurement, Rule
from tasks.lineage.merkle import receipts_root
from tasks.measuring.quality import accuracy
from tests.gate_evidence import LAST, Records, answers, cell, encoded
from tests.quality_builder import quality_set

ROWS = 400
PROVEN = Rule(
    "accuracy", "test", "overall", "teacher", "max_drop", 0.04, "block", None, "paired_bootstrap", 0.95, min_support=200
)
EXACT = replace(PROVEN, test="mcnemar")
CHAMPION = replace(PROVEN, versus="champion")
PARENT = replace(PROVEN, versus="parent")
PARENT_CHURN = Rule("churn", "test", "overall", "parent", "max", 0.15, "block")
EVERY_SLICE = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.08, "block", "*", min_support=10)
GOLDEN_LOGITS = Rule("golden_max_difference", None, "overall", None, "max", 1e-4, "block")
ASKED = {name: Asked(name, "block") for name in CHECKS}
SLICES = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.08, "block", "class:*", min_support=100)
SHOWN_SLICES = replace(SLICES, test="paired_bootstrap", confidence=0.95, threshold=0.12)
CHURN = Rule("churn", "test", "overall", "teacher", "max", 0.15, "block")
PLAIN = Rule("accuracy", "test", "overall", "teacher", "max_drop", 0.04, "block")
CALIBRATION = Rule("calibration_error", "test", "overall", None, "max", 0.5, "block")


@dataclass
class Case:
    """Evaluations as they are found: predictions and what quality.json says, and the rules that are asked."""

    rules: list[Rule | Asked]
    frames: dict[str, pd.DataFrame]
    reports: dict[str, Any] = field(default_factory=dict)
    extra: dict[Any, Measurement] = field(default_factory=dict)
    records: Records = field(default_factory=Records)


def frame(lost: int, gained: int) -> pd.DataFrame:
    """Return predictions that lose and gain rows against a teacher that is right on the first 320 of 400 rows."""
    number = np.arange(ROWS)
    label = number % 2
    right = number < 320
    right[:lost] = False
    right[ROWS - gained :] = True
    prediction = np.where(right, label, 1 - label)
    logits = np.where(prediction[:, None] == [0, 1], 1.0, -1.0).astype(np.float32)
    slices = [["class:positive" if one else "class:negative", *(["rare"] if row < 20 else [])] for row, one in enumerate(label)]
    return pd.DataFrame(
        {
            "row_id": [f"{row:016x}" for row in number],
            "label": label,
            "prediction": prediction,
            "logit_0": logits[:, 0],
            "logit_1": logits[:, 1],
            "slices": slices,
        }
    )


def report(of: pd.DataFrame) -> dict[str, Any]:
    slices = {}
    for name in ("overall", "class:negative", "class:positive", "rare"):
        rows = of[[name == "overall" or name in names for names in of["slices"]]]
        value = accuracy(rows["label"].to_numpy(), rows["prediction"].to_numpy()) if len(rows) else 0.0
        slices[name] = {"support": len(rows), "accuracy": {"value": value}}
    return {"test": quality_set(slices, len(of), "a" * 64)}


def honest(*rules: Rule | Asked, lost: int = 8, gained: int = 8) -> Case:
    frames = {"student": frame(lost, gained), "teacher": frame(0, 0), "champion": frame(2, 2), "parent": frame(4, 2)}
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
    rows = models["student"].rows("test")
    asked = [rule.name for rule in case.rules if isinstance(rule, Asked)]
    told = answers(case.records, dict(models["student"].sets), {"test": None if rows is None else set(rows["row_id"])}, asked)
    return judge(case.rules, {**evidence, **case.extra}, pairs, names, answers=told)


def change(who: str, edit: Callable[[pd.DataFrame], pd.DataFrame], *rules: Rule | Asked) -> Callable[[], Case]:
    """Return a case in which one file of predictions is not what it was; quality.json tells of the honest one."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        case.frames[who] = edit(case.frames[who])
        return case

    return made


def told(who: str, edit: Callable[[dict[str, Any]], Any], *rules: Rule | Asked) -> Callable[[], Case]:
    """Return a case in which a quality.json is not what it was."""

    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        edit(case.reports[who])
        return case

    return made


def records(check: str, edit: Callable[[Records], Any]) -> Callable[[], Case]:
    """Return a case in which one record that a check reads is not what it was."""

    def made() -> Case:
        case = honest(ASKED[check])
        edit(case.records)
        return case

    return made


def measured(rule: Rule, value: Any) -> Callable[[], Case]:
    """Return a case of one measurement that depends on no rows."""

    def made() -> Case:
        case = honest(rule)
        case.extra = {("student", rule.metric, None, "overall"): Measurement(value)}
        return case

    return made


def without(who: str, what: str, *rules: Rule | Asked) -> Callable[[], Case]:
    def made() -> Case:
        case = honest(*(rules or (PROVEN,)))
        del getattr(case, what)[who]
        return case

    return made


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


def replace_records(case: Case, **changes: Any) -> Case:
    case.records = replace(case.records, **changes)
    return case


def _other_bytes(of: Records) -> None:
    of.receipts["prepare"]["outputs"] = {"artifacts/data/sets/train.parquet": {"sha256": "f" * 64}}
    of.root = receipts_root(encoded(of.receipts))


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
    (
        "slice left out of the report",
        told("student", lambda sets: sets["test"]["slices"].pop("class:positive"), SLICES),
        "hold",
        "says None",
    ),
    ("no slice matches", lambda: honest(replace(SLICES, slices="topic:*")), "hold", "no slice is called"),
    ("slice without rows", lambda: honest(replace(PROVEN, slice="nowhere")), "hold", "no"),
    ("nothing asked", lambda: honest(), "hold", "nothing is proven"),
    ("only warnings asked", lambda: honest(replace(PROVEN, severity="warn")), "hold", "nothing is proven"),
    # too few
    ("empty predictions", both(cut), "hold", "are empty"),
    ("too little support", lambda: honest(replace(PROVEN, slice="rare")), "hold", "20 rows are too few"),
    (
        "too little support, plain rule",
        lambda: honest(replace(PLAIN, slice="rare", min_support=30)),
        "hold",
        "20 rows are too few",
    ),
    ("one slice with too little support", lambda: honest(replace(SLICES, slices="*")), "hold", "1 undecided of 3"),
    # other rows
    ("other order", change("student", lambda of: of.iloc[::-1]), "hold", "different rows"),
    ("a row left out", change("student", lambda of: of.iloc[1:]), "hold", "different rows"),
    ("another set", told("student", lambda sets: sets["test"].update(rows_sha256="b" * 64)), "hold", "different rows"),
    (
        "champion of another set",
        told("champion", lambda sets: sets["test"].update(rows_sha256="b" * 64), CHAMPION),
        "hold",
        "champion and the teacher were measured on different rows",
    ),
    ("duplicate ids", both(cell("row_id", f"{6:016x}")), "hold", "counts more than once"),
    ("easy rows twice", both(lambda of: pd.concat([of, of.iloc[:100]])), "hold", "counts more than once"),
    # changed rows
    ("labels made to fit", change("student", lambda of: of.assign(label=of["prediction"])), "hold", "different labels"),
    ("predictions made to fit", change("student", lambda of: of.assign(prediction=of["label"])), "hold", "not the largest"),
    ("label out of range", both(cell("label", 7)), "hold", "none of the 2 classes"),
    ("label of unlabelled text", both(cell("label", -1)), "hold", "none of the 2 classes"),
    ("one logit too few", change("student", lambda of: of.drop(columns="logit_1")), "hold", "finite logits"),
    ("hard rows moved out of a slice", change("student", cell("slices", ["class:negative"]), SLICES), "hold", "different slices"),
    (
        "a column of the wrong type",
        change("student", lambda of: of.assign(label=of["label"].astype(str))),
        "hold",
        "different labels",
    ),
    ("a column missing", change("student", lambda of: of.drop(columns="prediction")), "hold", "there are no predictions"),
    # the parent round
    ("against the parent", lambda: honest(PARENT), "pass", "its parent's"),
    ("worse than the parent", lambda: honest(PARENT, lost=40, gained=0), "fail", "its parent's"),
    ("parent's churn", lambda: honest(PARENT_CHURN), "pass", "differ from its parent's predictions"),
    ("parent missing", without("parent", "reports", PARENT), "hold", "no evaluation of the parent round"),
    ("parent without predictions", without("parent", "frames", PARENT_CHURN), "hold", "no predictions of parent"),
    (
        "parent of another set",
        told("parent", lambda sets: sets["test"].update(rows_sha256="b" * 64), PARENT),
        "hold",
        "parent and the teacher were measured on different rows",
    ),
    ("parent in another order", change("parent", lambda of: of.iloc[::-1], PARENT), "hold", "different rows"),
    ("parent with a row twice", change("parent", lambda of: pd.concat([of, of.iloc[:1]]), PARENT), "hold", "different rows"),
    ("parent told too low", told("parent", told_value(0.5), PARENT), "hold", "quality.json of parent says"),
    ("parent's logit NaN", change("parent", cell("logit_0", math.nan), PARENT), "hold", "finite logits"),
    # the worst of all slices
    ("every slice", lambda: honest(EVERY_SLICE, lost=1), "pass", "3 kept of 3 slices"),
    ("one slice much worse", lambda: honest(EVERY_SLICE), "fail", "1 broken of 3 slices '*'; worst: accuracy on test (rare)"),
    (
        "every slice of a set without any",
        told("teacher", lambda sets: None, replace(EVERY_SLICE, slices="length:*")),
        "hold",
        "no slice is called",
    ),
    # golden logits
    ("golden logits", measured(GOLDEN_LOGITS, 2e-7), "pass", "golden logits"),
    ("golden logits differ", measured(GOLDEN_LOGITS, 0.3), "fail", "0.3"),
    ("golden logits NaN", measured(GOLDEN_LOGITS, math.nan), "hold", "not a finite number"),
    ("golden logits never asked", lambda: honest(GOLDEN_LOGITS), "hold", "no measurement of the student"),
    ("golden logits as text", measured(GOLDEN_LOGITS, "0.0"), "hold", "not a finite number"),
    # the data behind the rows
    ("valid data", lambda: honest(ASKED["data_validated"]), "pass", "3 expectations are met by rows.csv"),
    (
        "data that failed",
        records("data_validated", lambda of: of.validation["expectations"][0].update(success=False)),
        "fail",
        "did not pass: labels",
    ),
    (
        "data that passed by a word",
        records("data_validated", lambda of: of.validation.update(success="yes")),
        "fail",
        "did not pass",
    ),
    (
        "nothing expected of the data",
        records("data_validated", lambda of: of.validation.update(expectations=[])),
        "hold",
        "no expectation was asked",
    ),
    (
        "another file validated",
        records("data_validated", lambda of: of.validation.update(sha256="e" * 64)),
        "hold",
        "another file was validated",
    ),
    (
        "no digest of the data",
        records("data_validated", lambda of: (of.validation.pop("sha256"), of.prepared.pop("sha256"))),
        "hold",
        "another file was validated",
    ),
    (
        "other rows than prepared",
        records("data_validated", lambda of: of.prepared["sets"]["test"].update(rows_sha256="b" * 64)),
        "hold",
        "other rows of 'test' were measured",
    ),
    (
        "a set that was never prepared",
        records("data_validated", lambda of: of.prepared["sets"].clear()),
        "hold",
        "other rows of 'test' were measured",
    ),
    ("nothing learnt by heart", lambda: honest(ASKED["no_overlap"]), "pass", "none of 400 measured rows is in train, transfer"),
    (
        "a test row in train",
        records("no_overlap", lambda of: of.learnt["train"].add(f"{7:016x}")),
        "fail",
        "1 rows of test are in train",
    ),
    (
        "a test row in transfer",
        records("no_overlap", lambda of: of.learnt["transfer"].add(f"{7:016x}")),
        "fail",
        "1 rows of test are in transfer",
    ),
    (
        "a nearly equal row in train",
        records("no_overlap", lambda of: of.validation["expectations"][2].update(success=False)),
        "fail",
        "near_duplicates_held_out",
    ),
    (
        "nobody looked for near duplicates",
        records("no_overlap", lambda of: of.validation["expectations"].pop()),
        "hold",
        "did not look for near_duplicates_held_out",
    ),
    ("no train set", records("no_overlap", lambda of: of.learnt.pop("train")), "hold", "no rows of train"),
    ("an empty train set", records("no_overlap", lambda of: of.learnt["train"].clear()), "hold", "no rows of train"),
    ("no transfer set", records("no_overlap", lambda of: of.learnt.update(transfer=None)), "hold", "no rows of transfer"),
    ("no rows to look at", without("student", "frames", ASKED["no_overlap"]), "hold", "no rows of test"),
    # receipts
    ("clean Git", lambda: honest(ASKED["clean_git"]), "pass", "all 4 stages ran on files as they are in commit 01234567"),
    (
        "edited files",
        records("clean_git", lambda of: of.receipts["distill@r1"]["git"].update(dirty=True)),
        "fail",
        "1 of 4 stages ran on files that differ from commit 01234567, e.g. distill@r1",
    ),
    ("outside of Git", records("clean_git", lambda of: of.receipts["fetch"]["git"].update(commit=None)), "hold", "not in Git"),
    ("Git not told", records("clean_git", lambda of: of.receipts["fetch"].update(git=None)), "hold", "git is no object"),
    ("clean by a word", records("clean_git", lambda of: of.receipts["fetch"]["git"].update(dirty="no")), "hold", "not in Git"),
    ("no receipts", records("clean_git", lambda of: of.receipts.clear()), "hold", "no receipt of gate@r1"),
    ("complete lineage", lambda: honest(ASKED["lineage"]), "pass", "4 receipts lead from the data to the model"),
    ("no receipt of the gate", records("lineage", lambda of: of.receipts.pop(LAST)), "hold", "no receipt of gate@r1"),
    (
        "a receipt lost in the middle",
        records("lineage", lambda of: of.receipts.pop("prepare")),
        "hold",
        "no receipt tells who wrote artifacts/data/sets/train.parquet",
    ),
    ("a receipt that is none", records("lineage", lambda of: of.receipts.update(fetch=b"{}")), "hold", "cannot be read"),
    (
        "a receipt of another stage",
        records("lineage", lambda of: of.receipts["fetch"].update(stage="prepare")),
        "hold",
        "cannot be read",
    ),
    (
        "a receipt that was changed",
        records("lineage", lambda of: of.receipts["fetch"].update(compute_seconds=2.0)),
        "fail",
        "a receipt was changed, added or removed",
    ),
    (
        "bytes changed between stages",
        records(
            "lineage",
            lambda of: of.receipts["prepare"]["outputs"].update({"artifacts/data/sets/train.parquet": {"sha256": "f" * 64}}),
        ),
        "fail",
        "a receipt was changed",
    ),
    (
        "bytes changed between stages, and the root",
        records("lineage", _other_bytes),
        "fail",
        "artifacts/data/sets/train.parquet: distill@r1 read other bytes than prepare wrote",
    ),
    ("no Merkle root", records("lineage", lambda of: setattr(of, "root", None)), "hold", "has not a Merkle root"),
    (
        "stale verdict",
        records("lineage", lambda of: of.stored.update({"verdict.json": "f" * 64})),
        "fail",
        "verdict.json: the registry has other bytes",
    ),
    (
        "other weights",
        records("lineage", lambda of: of.stored.update({"trained/model/model.safetensors": "f" * 64})),
        "fail",
        "model.safetensors: the registry has other bytes",
    ),
    # a copy of the model that is asked again
    ("golden answers", lambda: honest(ASKED["golden"]), "pass", "gives the 2 golden answers"),
    ("another model's answers", records("golden", lambda of: of.logits.__setitem__((0, 0), 0.6)), "fail", "differ by 0.1"),
    ("answers NaN", records("golden", lambda of: of.logits.__setitem__((1, 1), math.nan)), "fail", "differ by nan"),
    ("an answer too few", records("golden", lambda of: setattr(of, "logits", of.logits[:1])), "fail", "where (2, 2) are golden"),
    ("golden file empty", records("golden", lambda of: of.golden["rows"].clear()), "hold", "nobody looked"),
    (
        "golden logit NaN",
        records("golden", lambda of: of.golden["rows"][0].update(logits=[math.nan, 1.0])),
        "hold",
        "nobody looked",
    ),
    ("golden tolerance endless", records("golden", lambda of: of.golden.update(atol=math.inf)), "hold", "nobody looked"),
    ("a server that answers", lambda: honest(ASKED["serves"]), "pass", "`mlflow models serve` gives the 2 golden answers"),
    ("a server with another label", records("serves", lambda of: of.told[1].update(label="negative")), "fail", "wrongly"),
    ("a server with another score", records("serves", lambda of: of.told[1].update(score=0.9)), "fail", "wrongly"),
    ("a server that says NaN", records("serves", lambda of: of.told[0].update(score=math.nan)), "fail", "wrongly"),
    ("a server that says a text", records("serves", lambda of: setattr(of, "told", "fine")), "fail", "answered"),
    ("a server with one answer", records("serves", lambda of: of.told.pop()), "fail", "to 2 texts"),
    ("a check that nobody made", lambda: replace_records(honest(ASKED["golden"]), golden=None), "hold", "nobody looked"),
]


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
    models = {
        "student": Model("student", case.reports["student"], tmp_path / "student"),
        "teacher": Model("teacher", case.reports["teacher"], tmp_path),
    }
    evidence, pairs, names = gather(case.rules, models, 2, 15)
    assert judge(case.rules, evidence, pairs, names)["verdict"] == "hold"
