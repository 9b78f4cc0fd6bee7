"""`compactlm audit --replay`: stages run again from their commit in a new worktree, and give the same bytes, or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.audit.replay import chosen
from tasks.audit.replayed import Context, compare_stage
from tasks.audit.walk import audit
from tasks.errors import UserError
from tasks.files import read_json, write_json
from tests.pipeline.conftest import Command
from tests.tampering import moved_away
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")
PLAIN = Context(read_other=None, tolerant=False, has_metrics=True)


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def replayed(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (subject, result) of the checks of a replay."""
    return [(check["subject"], check["result"]) for check in report["checks"] if check["name"] == "replay"]


def test_pruning_replays_bit_for_bit_and_leaves_nothing(finished: Project, command: Command) -> None:
    before = finished.facts()
    code, printed, errors = command(finished, "audit", "tiny/3", "--stages", "prune@r1", "--json")
    report = json.loads(printed)
    assert (code, report["result"]) == (0, "PASS")
    assert replayed(report) == [("prune@r1", "PASS")]
    assert [stage["name"] for stage in report["replay"]["stages"]] == ["prune@r1"]
    assert report["replay"]["environment"] == []
    assert "replay 1/1 prune@r1: PASS in" in errors
    assert finished.facts() == before
    assert finished.shell("git", "worktree", "list").count("\n") == 1
    assert not list((finished.folder / ".compactlm").glob("audit-*"))


@pytest.mark.slow
def test_a_stage_whose_recorded_result_does_not_follow_is_found(project: Project) -> None:
    """A forger who has changed result, receipt and every digest alike cannot change what the stage does."""
    from tests.pipeline.forgery import forge_output

    forge_output(project.folder, "prepare", "artifacts/data/summary.json", lambda text: text.replace("1", "2", 1))
    report = audit(project.folder, "tiny/1", again=["prepare"])
    assert ("artifacts/data/summary.json", "FAIL") in replayed(report)


@pytest.mark.slow
def test_what_cannot_be_replayed_is_unknown(finished: Project) -> None:
    with moved_away(finished.folder / "artifacts/fetched"), moved_away(finished.folder / ".dvc/cache/files"):
        report = audit(finished.folder, "tiny/1", again=["prepare"])
    assert replayed(report) == [("prepare", "UNKNOWN")]


def test_a_pattern_that_matches_no_stage_is_refused() -> None:
    assert chosen(["fetch", "prune@r1", "prune@r2"], ["prune@*", "fetch"]) == ["fetch", "prune@r1", "prune@r2"]
    with pytest.raises(UserError, match=r"--stages 'pruen': no such stage behind this model; there are: fetch"):
        chosen(["fetch"], ["pruen"])


@pytest.fixture
def evaluation(finished: Project, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The receipt of an evaluation, that of its replay, and a folder with the replay's files, which a test may change."""
    receipt = read_json(finished.folder / "artifacts/receipts/evaluate@r3.json")
    shutil.copytree(finished.folder / "artifacts/rounds/r3/evaluated", tmp_path / "artifacts/rounds/r3/evaluated")
    return receipt, json.loads(json.dumps(receipt)), tmp_path


def results(evaluation: tuple[dict[str, Any], dict[str, Any], Path], finished: Project, context: Context = PLAIN) -> list[str]:
    receipt, again, tree = evaluation
    places = {path: finished.folder / path for path in _paths(receipt)}
    return [f"{finding.result} {finding.sentence}" for finding in compare_stage(receipt, again, tree, places, context)]


def _paths(receipt: dict[str, Any]) -> list[str]:
    from tasks.lineage.chain import files_of

    return list(files_of(receipt, "outputs"))


def test_measured_times_may_differ_and_other_numbers_may_not(evaluation: Any, finished: Project) -> None:
    place = evaluation[2] / "artifacts/rounds/r3/evaluated/cost.json"
    cost = read_json(place)
    write_json(place, {**cost, "peak_memory_bytes": 1})
    assert results(evaluation, finished) == ["PASS 7 files came out bit for bit, 1 but for measured times"]
    write_json(place, {**cost, "params_total": 1})
    assert results(evaluation, finished) == ["FAIL numbers that are not measured times differ"]


def test_other_bytes_fail_on_the_same_machine_and_are_unknown_in_another_environment(evaluation: Any, finished: Project) -> None:
    receipt, again, tree = evaluation
    place = tree / "artifacts/rounds/r3/evaluated/predictions/test.parquet"
    place.write_bytes(place.read_bytes() + b" ")
    assert results(evaluation, finished) == ["FAIL evaluate@r3 gives other bytes when it runs again"]
    again["environment"]["packages"]["torch"] = "1.0"
    assert "another environment: torch" in results(evaluation, finished)[0]
    assert results(evaluation, finished)[0].startswith("UNKNOWN")
    again["environment"] = {**receipt["environment"], "processor": "x86_64 avx2"}
    assert "another environment: processor" in results(evaluation, finished)[0]
    del receipt["environment"]["processor"]  # as older receipts are
    assert "another environment: processor not recorded -> x86_64 avx2" in results(evaluation, finished)[0]
    other = Context("artifacts/x", tolerant=False, has_metrics=True)
    assert results(evaluation, finished, other) == ["UNKNOWN follows from other bytes of artifacts/x"]


def test_on_a_device_that_is_not_deterministic_the_metrics_decide(evaluation: Any, finished: Project) -> None:
    tolerant = Context("artifacts/x", tolerant=True, has_metrics=True)
    folder = evaluation[2] / "artifacts/rounds/r3/evaluated"
    (folder / "predictions/test.parquet").write_bytes(b"others")
    quality = read_json(folder / "quality.json")
    accuracy = quality["sets"]["test"]["slices"]["overall"]["accuracy"]
    accuracy["value"] -= 0.01
    write_json(folder / "quality.json", quality)
    assert results(evaluation, finished, tolerant)[0].startswith("PASS 6 files came out bit for bit")
    accuracy["value"] -= 0.02
    write_json(folder / "quality.json", quality)
    assert results(evaluation, finished, tolerant) == ["FAIL differs by more than 0.02"]
    blind = Context(None, tolerant=True, has_metrics=False)
    assert any(line.startswith("UNKNOWN other bytes on a device") for line in results(evaluation, finished, blind))


@pytest.mark.slow
def test_the_whole_run_replays_bit_for_bit(finished: Project) -> None:
    report = audit(finished.folder, "tiny/3", again=["*"])
    assert [check for check in report["checks"] if check["result"] != "PASS"] == []
    assert [name for name, _ in replayed(report)] == [stage["name"] for stage in report["stages"]]
