"""Backup, all deleted, restore; and gc: on a real run, judged by the audit. Quick sisters: test_backup.py, test_gc.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import Command
from tests.tiny_project import Project

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")]
OWN_PLACES = ("path", "onnx_path")


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def facts(project: Project, command: Command) -> dict[str, Any]:
    """Return what a person sees of models and decisions, and that nothing is wrong with the champion."""
    _, models, _ = command(project, "models", "--json")
    rows = [{key: value for key, value in row.items() if key not in OWN_PLACES} for row in json.loads(models)]
    _, history, _ = command(project, "history", "--json")
    return {"models": rows, "history": json.loads(history), "refs": project.shell("git", "for-each-ref")}


def commit(project: Project, words: str) -> None:
    project.shell("git", "add", "-A")
    project.shell("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", words)


def test_all_is_deleted_and_restored_and_the_audit_is_green(project: Project, command: Command, tmp_path: Path) -> None:
    before = facts(project, command)
    code, said, _ = command(project, "backup", str(tmp_path / "backup"), "--json")
    assert (code, json.loads(said)["damaged"]) == (0, [])
    shutil.rmtree(project.folder)
    project.folder.mkdir()
    code, said, words = command(project, "restore", str(tmp_path / "backup"), "--json")
    assert (code, json.loads(said)["faults"], json.loads(said)["lacking"]) == (0, [], []), words
    assert facts(project, command) == before
    code, said, _ = command(project, "audit", "--json")
    assert (code, json.loads(said)["result"]) == (0, "PASS")
    assert project.run() == {}  # there is nothing to do


def test_after_gc_what_stays_is_audited_without_a_fault_and_made_again(
    project: Project, command: Command, tmp_path: Path
) -> None:
    commit(project, "first")
    for rate in ("4.0e-3", "3.0e-3"):
        project.run("--set", f"rounds.r3.learning_rate={rate}")
        commit(project, rate)
    before = facts(project, command)["models"]
    code, said, words = command(project, "gc", "--keep", "1", "--yes", "--json")
    answer = json.loads(said)
    assert (code, [row["version"] for row in answer["versions"]]) == (0, [4]), words
    assert answer["bytes"] > 0
    after = facts(project, command)["models"]
    assert after == [row for row in before if row["version"] != 4]
    for number in (1, 2, 3, 5):
        code, said, _ = command(project, "audit", f"tiny/{number}", "--json")
        bad = [check for check in json.loads(said)["checks"] if check["result"] != "PASS"]
        assert (code, bad) == (0, []), number
    assert project.run() == {}  # there is nothing to do
    fresh = project.copy(tmp_path / "fresh")
    shutil.rmtree(fresh.folder / ".compactlm/mlflow")
    code, said, words = command(fresh, "publish", "--rebuild", "--json")
    assert (code, json.loads(said)["lost"]) == (0, []), words
    assert facts(fresh, command)["models"] == [
        {**row, **{key: new[key] for key in ("model_id", "run_id")}}
        for row, new in zip(after, facts(fresh, command)["models"], strict=True)
    ]
