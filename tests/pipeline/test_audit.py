"""`compactlm audit` on a real run: what was changed behind its back is found and named, what is honest is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.audit import classification, rederive
from tasks.audit.walk import audit
from tasks.files import read_json
from tasks.promotion.decisions import read_refs
from tests.pipeline.attacks import ATTACKS, ROUNDS, batches
from tests.pipeline.conftest import Command
from tests.pipeline.forgery import forge_log
from tests.tampering import moved_away, one_byte
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def faults(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (check, subject) of what failed."""
    return [(check["name"], check["subject"]) for check in report["checks"] if check["result"] == "FAIL"]


@pytest.mark.parametrize("batch", batches())
def test_changes_made_together_are_each_found_and_named(finished: Project, batch: str) -> None:
    with contextlib.ExitStack() as stack:
        for what in batches()[batch]:
            stack.enter_context(ATTACKS[what][0](finished.folder))
        failures = faults(audit(finished.folder, "tiny/3"))
    for what in batches()[batch]:
        _, check, subject = ATTACKS[what]
        assert [failure for failure in failures if failure[0] == check and subject in failure[1]], (what, failures)


@pytest.mark.slow
@pytest.mark.parametrize("what", ATTACKS)
def test_a_change_is_found_and_named(finished: Project, what: str) -> None:
    attack, check, subject = ATTACKS[what]
    with attack(finished.folder):
        report = audit(finished.folder, "tiny/3")
    assert report["result"] == "FAIL"
    assert [failure for failure in faults(report) if failure[0] == check and subject in failure[1]], faults(report)


def test_an_honest_run_passes_whole(finished: Project) -> None:
    for number, name in ((1, "r1"), (2, "r2"), (3, "r3")):
        report = audit(finished.folder, f"tiny/{number}")
        assert [check for check in report["checks"] if check["result"] != "PASS"] == []
        assert report["round"] == name
    stages = {stage["name"] for stage in report["stages"]}
    assert {"fetch", "prepare", "teacher", "teacher_logits", "prune@r1", "distill@r2", "gate@r3"} <= stages
    assert "gate@r1" not in stages  # r3 does not rest on what was judged of r1
    assert ["prune@r3", "distill@r3"] in [list(edge) for edge in report["edges"]]
    assert report["files"] > 100


def test_bytes_that_are_nowhere_are_unknown_and_not_passed(finished: Project) -> None:
    path = finished.folder / ROUNDS / "r1/pruned/plan.json"
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    with moved_away(path), moved_away(finished.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]):
        report = audit(finished.folder, None)
    assert report["result"] == "UNKNOWN"
    doubts = {(check["name"], check["subject"]) for check in report["checks"] if check["result"] == "UNKNOWN"}
    assert doubts == {("bytes", "prune@r1"), ("pruning", "r1")}


FORGERIES: dict[str, tuple[Callable[[list[dict[str, Any]]], None], str, str]] = {
    "evidence": (
        lambda log: log[1]["verdict"]["evidence"].update({"student/test.parquet": "0" * 64}),
        "decision evidence",
        "decision 2: student/test.parquet",
    ),
    "evidence of the champion": (
        lambda log: log[1]["verdict"]["evidence"].update({"champion/test.parquet": "0" * 64}),
        "decision evidence",
        "decision 2: champion/test.parquet",
    ),
    "value of a rule": (lambda log: log[1]["verdict"]["rules"][2].update(value=0.5), "decision", "decision 2: rule 3"),
    "verdict": (lambda log: log[1]["verdict"].update(verdict="pass"), "decision", "decision 2: verdict"),
    "outcome": (lambda log: log[1].update(outcome="done"), "decision log", "decisions.jsonl: decision 2"),
    "champion before": (lambda log: log[1]["before"].update(champion=None), "decision log", "decisions.jsonl: decision 2"),
    "candidate": (lambda log: log[1]["candidate"].update(model_sha256="0" * 64), "inverse scan", "decision 2"),
}


@pytest.fixture(scope="module")
def refused(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished project after a promotion that was refused, for want of rows."""
    project = finished.copy(tmp_path_factory.mktemp("refused") / "project")
    done = project.compactlm("promote", "1")
    assert done.returncode == 2
    assert "is refused" in done.stderr
    return project


@pytest.mark.parametrize("what", FORGERIES)
def test_a_log_that_was_forged_whole_is_found_by_what_it_says(refused: Project, what: str) -> None:
    change, check, subject = FORGERIES[what]
    before = read_refs(refused.folder)
    forge_log(refused.folder, change)
    try:
        report = audit(refused.folder, "tiny/1")
    finally:
        forge_log(refused.folder, lambda log: log.__setitem__(slice(None), before))
    assert (check, subject) in faults(report), faults(report)


@pytest.fixture
def view(finished: Project, tmp_path: Path) -> Path:
    """A copy of the run's files that a forger may change: no digest will tell on him here."""
    shutil.copytree(finished.folder / "artifacts", tmp_path / "artifacts")
    return tmp_path


def test_weights_that_do_not_follow_from_the_plan_are_found(view: Path) -> None:
    assert classification.pruned(view, "r2", "r1") == []
    with one_byte(view / ROUNDS / "r2/pruned/model/model.safetensors"):
        assert [finding.subject for finding in classification.pruned(view, "r2", "r1")] == [
            f"{ROUNDS}/r2/pruned/model/model.safetensors"
        ]


def test_numbers_that_do_not_follow_from_the_predictions_are_found(view: Path) -> None:
    params = read_json(view / "artifacts/receipts/evaluate@r3.json")["params"]
    assert classification.measured(view, params, "r3") == []
    path = view / ROUNDS / "r3/evaluated/quality.json"
    quality = read_json(path)
    quality["sets"]["test"]["slices"]["overall"]["accuracy"]["low"] += 0.01
    quality["unlabelled"]["stress_chat"]["slices"]["overall"]["prior_gap"]["high"] += 0.01
    quality["unlabelled"]["changed_abroad"]["pieces"]["tokens_ratio"] += 0.01
    path.write_text(json.dumps(quality), encoding="utf-8")
    assert [finding.subject for finding in classification.measured(view, params, "r3")] == [
        "r3: test: overall: accuracy: low",
        "r3: changed_abroad: pieces: tokens_ratio",
        "r3: stress_chat: overall: prior_gap: high",
    ]


def test_a_verdict_that_the_rules_do_not_give_is_found(view: Path) -> None:
    receipt = read_json(view / "artifacts/receipts/gate@r3.json")
    assert rederive.judged(view, receipt) == []
    verdict = read_json(view / ROUNDS / "r3/verdict.json")
    verdict["rules"][0]["value"] = 0.5
    (view / ROUNDS / "r3/verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    assert [finding.subject for finding in rederive.judged(view, receipt)] == ["gate@r3: rule 1"]


def test_a_checkpoint_that_is_not_the_best_is_found(view: Path) -> None:
    assert rederive.best_checkpoint(view, "r2") == []
    folder = view / ROUNDS / "r2/trained"
    best = read_json(folder / "summary.json")["best_checkpoint"]
    other = next(p for p in sorted((folder / "checkpoints").iterdir()) if p.name != best)
    shutil.copyfile(other / "model.safetensors", folder / "model/model.safetensors")
    assert {finding.subject for finding in rederive.best_checkpoint(view, "r2")} == {"r2: model_sha256", "r2: best"}


def test_another_checkpoint_in_the_place_of_the_best_is_found(view: Path) -> None:
    """Everything about it is consistent, but for the number by which the best is told."""
    folder = view / ROUNDS / "r2/trained"
    summary = read_json(folder / "summary.json")
    other = next(checkpoint for checkpoint in summary["checkpoints"] if checkpoint["name"] != summary["best_checkpoint"])
    shutil.copyfile(folder / "checkpoints" / other["name"] / "model.safetensors", folder / "model/model.safetensors")
    changed = {**summary, "best_checkpoint": other["name"], "model_sha256": other["sha256"]}
    (folder / "summary.json").write_text(json.dumps(changed), encoding="utf-8")
    assert [finding.subject for finding in rederive.best_checkpoint(view, "r2")] == ["r2: best"]


def test_the_command_says_what_it_found(finished: Project, tmp_path: Path, command: Command) -> None:
    page = tmp_path / "audit.html"
    code, printed, _ = command(finished, "audit", "tiny@champion", "--json", "--html", str(page))
    assert code == 0
    assert json.loads(printed)["result"] == "PASS"
    text = page.read_text(encoding="utf-8")
    assert "every check passes" in text
    assert text.count("<rect") == len(json.loads(printed)["stages"])
    assert "http" not in text  # it asks for nothing else
    with one_byte(finished.folder / ROUNDS / "r3/exported/model.onnx"):
        code, printed, _ = command(finished, "audit", "tiny/3")
    assert code == 1
    assert f"FAIL {ROUNDS}/r3/exported/model.onnx: the file is not what export@r3 wrote" in printed
    code, _, errors = command(finished, "audit", "tiny/9")
    assert code == 2
    assert "tiny/9: there is no such version; registered: tiny@challenger, tiny@champion, tiny/1, tiny/2, tiny/3" in errors
