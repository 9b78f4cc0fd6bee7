"""gate, select and report on a made-up run: honest evidence decides, tampered or foreign evidence is held."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.files import read_json, write_json
from tasks.params.file import apply_overrides
from tasks.report.classification import headline
from tasks.report.story import Story
from tasks.running.stage import main
from tests.example_run import build_run, gate_arguments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("example") / "artifacts")


@pytest.fixture
def artifacts(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "artifacts"))


def _gate(artifacts: Path, name: str) -> dict[str, Any]:
    assert main([*gate_arguments(artifacts, name), "--params", str(ROOT / "params.yaml")]) == 0
    verdict: dict[str, Any] = read_json(artifacts / "rounds" / name / "verdict.json")
    return verdict


def _finish(artifacts: Path, described: Path = ROOT / "params.yaml") -> str:
    """Run the gates that have no verdict yet, select and report; return the page."""
    params, rounds = ["--params", str(described)], artifacts / "rounds"
    for name in ("r1", "r2", "r3"):
        if not (rounds / name / "verdict.json").is_file():
            _gate(artifacts, name)
    selection, out = str(artifacts / "selection.json"), artifacts / "report.html"
    assert main(["select", "--rounds", str(rounds), "--out", selection, *params]) == 0
    assert (
        main(
            [
                "report",
                "--rounds",
                str(rounds),
                "--baselines",
                str(artifacts / "baselines"),
                "--validation",
                str(artifacts / "validation/summary.json"),
                "--selection",
                selection,
                "--data",
                str(artifacts / "data/summary.json"),
                "--sets",
                str(artifacts / "data/sets"),
                "--out",
                str(out),
                "--receipts",
                str(artifacts / "receipts"),
                *params,
            ]
        )
        == 0
    )
    return out.read_text(encoding="utf-8")


def _change(path: Path, change: Callable[[Any], None]) -> None:
    value = read_json(path)
    change(value)
    write_json(path, value)


def _results(verdict: dict[str, Any]) -> dict[tuple[str, str | None, str | None], str]:
    asked = [one for one in verdict["rules"] if one["metric"] and one["severity"] == "block"]
    return {(one["metric"], one["set"], one["versus"]): one["result"] for one in asked}


def test_honest_evidence_is_decided(artifacts: Path) -> None:
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "pass", [one["sentence"] for one in verdict["rules"]]
    assert verdict["round"] == "r3"
    first = verdict["rules"][0]
    told = read_json(artifacts / "rounds/r3/evaluated/quality.json")["sets"]["test"]["slices"]["overall"]["accuracy"]
    assert first["measured"] == pytest.approx(told["value"], abs=1e-6)
    assert first["support"] == 964


def _lift(quality: dict[str, Any]) -> None:
    quality["sets"]["test"]["slices"]["overall"]["accuracy"]["value"] += 0.01


def _other_rows(quality: dict[str, Any]) -> None:
    quality["sets"]["test"]["rows_sha256"] = "0" * 64


def _no_set(quality: dict[str, Any]) -> None:
    del quality["sets"]["test"]


@pytest.mark.parametrize(
    ("who", "change", "words"),
    [
        ("r3", _lift, "quality.json of student says"),
        ("teacher", _lift, "quality.json of teacher says"),
        ("r3", _other_rows, "student and the teacher were measured on different rows"),
        ("r3", _no_set, "quality.json of student has no set 'test'"),
    ],
)
def test_a_report_that_its_predictions_do_not_bear_out_is_held(
    artifacts: Path, who: str, change: Callable[[Any], None], words: str
) -> None:
    _change(artifacts / "rounds" / who / "evaluated/quality.json", change)
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "hold"
    assert words in verdict["rules"][0]["sentence"]
    assert _results(verdict)["accuracy", "imdb", "teacher"] == "pass"


def _fewer(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[1:]


def _relabelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(label=frame["prediction"])


def _predicted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(prediction=frame["label"])


@pytest.mark.parametrize(
    ("change", "words"),
    [(_fewer, "different rows"), (_relabelled, "different labels"), (_predicted, "not the largest of its logits")],
)
def test_tampered_predictions_are_held(artifacts: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    path = artifacts / "rounds/r3/evaluated/predictions/test.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "hold"
    assert words in verdict["rules"][0]["sentence"]


def test_missing_predictions_are_held(artifacts: Path) -> None:
    (artifacts / "rounds/teacher/evaluated/predictions/imdb.parquet").unlink()
    results = _results(_gate(artifacts, "r3"))
    assert results["accuracy", "imdb", "teacher"] == "hold"
    assert results["accuracy", "test", "teacher"] == "pass"


def test_rows_that_were_learnt_from_are_found(artifacts: Path) -> None:
    tested = pd.read_parquet(artifacts / "rounds/r3/evaluated/predictions/test.parquet")
    tested[["row_id"]].iloc[:2].to_parquet(artifacts / "data/sets/transfer.parquet", index=False)
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "fail"
    assert "no_overlap: 2 rows of test are in transfer" in [one["sentence"][:42] for one in verdict["rules"]]


def test_rows_of_data_that_was_never_validated_are_held(artifacts: Path) -> None:
    _change(artifacts / "validation/summary.json", lambda summary: summary.update(sha256="cd" * 32))
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "hold"
    assert any("another file was validated" in one["sentence"] for one in verdict["rules"])


def test_a_round_is_set_beside_its_parent(artifacts: Path) -> None:
    found = {name: next(one for one in _gate(artifacts, name)["rules"] if one.get("versus") == "parent") for name in ("r1", "r3")}
    told = {name: read_json(artifacts / "rounds" / name / "evaluated/quality.json") for name in ("teacher", "r2")}
    accuracy = {name: one["sets"]["test"]["slices"]["overall"]["accuracy"]["value"] for name, one in told.items()}
    assert found["r1"]["reference"] == pytest.approx(accuracy["teacher"], abs=1e-6)
    assert found["r3"]["reference"] == pytest.approx(accuracy["r2"], abs=1e-6)
    assert "its parent's" in found["r3"]["sentence"]


def test_a_slow_or_unfaithful_export_fails(artifacts: Path) -> None:
    _change(artifacts / "rounds/r3/exported/parity.json", lambda parity: parity.update(onnx_max_difference=0.01))
    verdict = _gate(artifacts, "r3")
    assert verdict["verdict"] == "fail"
    assert _results(verdict)["onnx_max_difference", None, None] == "fail"


def test_the_smallest_round_that_passes_is_selected(artifacts: Path) -> None:
    _change(artifacts / "rounds/r3/exported/parity.json", lambda parity: parity.update(onnx_max_difference=0.01))
    page = _finish(artifacts)
    selection = read_json(artifacts / "selection.json")
    assert selection["selected"] == "r2"
    assert [one["round"] for one in selection["candidates"]] == ["r1", "r2", "r3"]
    assert selection["candidates"][2]["verdict"] == "fail"
    assert "r2 is 4.3 times smaller than its teacher" in page


def test_no_round_is_selected_if_none_passes(artifacts: Path) -> None:
    (artifacts / "rounds/teacher/evaluated/predictions/test.parquet").unlink()
    page = _finish(artifacts)
    assert read_json(artifacts / "selection.json")["selected"] is None
    assert "No round may be promoted: r1 is undecided, r2 is undecided and r3 is undecided." in page


class _Checker(HTMLParser):
    """Notes tags that are left open and addresses that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "circle", "path", "line", "polyline"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_self_contained_and_the_same_again(artifacts: Path) -> None:
    page = _finish(artifacts)
    assert page == _finish(artifacts)
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.fetched == ["data:,"]
    assert "@import" not in page
    assert "url(" not in page
    assert "<script" not in page
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(checker.text))
    svgs = re.findall(r"<svg [^>]*>", page)
    assert len(svgs) == 6  # the front twice, for wide and narrow screens, and one panel a model
    assert all('role="img"' in svg and 'aria-label="' in svg for svg in svgs)
    for words in ("r3 is 7.9 times smaller", "TF-IDF + logistic regression", "distill@r1", "at least 97 % is asked"):
        assert words in page
    assert "distill@r9" not in page  # a round params.yaml no longer has


def test_a_random_start_is_among_the_rivals(artifacts: Path, tmp_path: Path) -> None:
    quality = read_json(artifacts / "rounds/r2/evaluated/quality.json")
    for entry in quality["sets"].values():
        entry["slices"]["overall"]["accuracy"] = {"value": 0.1234, "low": 0.1, "high": 0.2}
        entry.pop("variants", None)
    write_json(artifacts / "rounds/r3/random_init/quality.json", quality)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    described = tmp_path / "params.yaml"
    described.write_text(apply_overrides(text, ["baselines.random_init=[r3]"], "params.yaml"), encoding="utf-8")
    page, without = _finish(artifacts, described), _finish(artifacts)
    _, label, rest = page.partition("random start, shape of r3")
    assert label
    assert rest.partition("</tr>")[0].count("0.123<small>0.100\N{EN DASH}0.200") == 4, "a number a set"
    assert "random start" not in without


def test_text_from_outside_is_escaped(artifacts: Path) -> None:
    _change(artifacts / "validation/summary.json", lambda summary: summary.update(file="<script>alert(1)</script>"))
    assert "<script" not in _finish(artifacts)


def test_the_headline_is_the_verdict(artifacts: Path) -> None:
    _finish(artifacts)
    models = {name: {"cost": {}, "quality": {}, "verdict": {"verdict": "pass"}} for name in ("teacher", "r1")}
    story = Story("toy", 0, models, {}, {}, {"selected": "r1"}, {}, {}, [])
    assert headline(story) == "r1 passes its gates."


def test_a_round_that_answers_otherwise_elsewhere_is_refused(artifacts: Path) -> None:
    place = artifacts / "rounds/r3/evaluated"
    path = place / "predictions/stress_posts.parquet"
    frame = pd.read_parquet(path)
    frame[["logit_0", "logit_1"]] += np.array([1.0, -1.0], dtype=np.float32)
    frame.assign(prediction=(frame["logit_1"] > frame["logit_0"]).astype("int64")).to_parquet(path, index=False)
    rule = next(one for one in _gate(artifacts, "r3")["rules"] if one["metric"] == "agreement")
    assert rule["result"] == "hold"  # the report says another number than these predictions
    assert rule["worst_set"] == "stress_posts"
    assert "says" in rule["sentence"]


def test_the_report_begins_with_where_it_may_fail(artifacts: Path, tmp_path: Path) -> None:
    page = _finish(artifacts)
    assert page.index("Where it may fail") < page.index("Teacher and rounds")
    for words in (
        "short public posts with handles, links and hashtags",
        "answers as the teacher",
        "handles",
        "Texts on which r3",
    ):
        assert words in page
    assert "text &lt;" in page  # texts are shown as text
    hidden = tmp_path / "params.yaml"
    shown = (ROOT / "params.yaml").read_text(encoding="utf-8")
    hidden.write_text(apply_overrides(shown, ["report.examples=0"], "params.yaml"), encoding="utf-8")
    assert "text &lt;" not in _finish(artifacts, hidden)


def test_a_report_without_sets_elsewhere_says_so(artifacts: Path) -> None:
    for path in artifacts.glob("rounds/*/evaluated/quality.json"):
        _change(path, lambda quality: quality.pop("unlabelled"))
    page = _finish(artifacts)
    assert "Nothing of another subject or style was measured" in page
    rule = next(one for one in _gate(artifacts, "r3")["rules"] if one["metric"] == "agreement")
    assert rule["result"] == "hold"
