"""What a promotion asks of a real run: receipts, committed files, golden answers, and a server that is really there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.files import read_json, read_json_lines
from tasks.promotion.checks import answers
from tasks.promotion.decide import describe
from tasks.promotion.decisions import VersionRecord
from tasks.promotion.serving import ServingError, served
from tasks.promotion.versions import read_version
from tasks.registry.tracking import Tracker
from tests.tiny_project import Project


@pytest.fixture
def tracker(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracker(finished.folder)


def processes_of(folder: Path) -> list[Any]:
    return [one.info for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]


def test_the_first_decision_says_what_was_asked_besides_the_gates(finished: Project) -> None:
    [entry] = read_json_lines(finished.folder / "decisions.jsonl")
    assert (entry["kind"], entry["outcome"]) == ("first", "done")
    checks = {rule["check"]: rule["result"] for rule in entry["verdict"]["rules"] if rule.get("check")}
    assert checks == dict.fromkeys(("data_validated", "no_overlap", "lineage", "clean_git"), "pass")
    assert entry["verdict"]["selection"]["num_candidates"] == 3
    assert "one of 3 rounds that were compared" in entry["verdict"]["sentence"]
    assert "3 rounds were compared" in read_json(finished.folder / "artifacts/selection.json")["sentence"]


def test_the_champion_answers_from_a_fresh_process_and_from_a_real_server(tracker: Tracker) -> None:
    candidate = describe(tracker, "tiny", tracker.aliases("tiny")["champion"])
    found = answers(read_version(tracker, candidate), ["golden", "serves", "lineage", "clean_git"])
    assert {name: answer.result for name, answer in found.items()} == dict.fromkeys(found, "pass"), found
    assert set(found) == {"golden", "serves", "lineage", "clean_git"}
    assert processes_of(tracker.local_model(str(candidate["model_id"]))) == []


def test_the_golden_answers_of_another_round_are_not_its_own(tracker: Tracker) -> None:
    one, other = (describe(tracker, "tiny", version) for version in ("1", "3"))
    mixed = read_version(tracker, {**one, "model_id": other["model_id"]})
    found = answers(mixed, ["golden"])["golden"]
    assert found.result == "fail"
    assert "differ by" in found.sentence


def test_a_version_whose_run_is_gone_is_held(tracker: Tracker) -> None:
    candidate: VersionRecord = {**describe(tracker, "tiny", "1"), "run_id": ""}
    found = answers(read_version(tracker, candidate), ["golden", "lineage"])
    assert {answer.result for answer in found.values()} == {"hold"}


def test_a_folder_that_is_no_model_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="ended by itself") as told:
        served(tmp_path, ["a fine film"])
    assert told.value.result == "fail"
    assert processes_of(tmp_path) == []
