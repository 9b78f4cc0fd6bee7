"""Code that dvc.lock names, held against what Git recorded."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.audit.code import _commit, locked_code, snapshots
from tasks.audit.evidence import Evidence
from tasks.files import full_digest
from tasks.lineage.checks import Finding

RECEIPT = b"the receipt of gate@r1"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose code is two files in Git."""
    folder = tmp_path / "project"
    (folder / "tasks/gates").mkdir(parents=True)
    (folder / "tasks/gates/rules.py").write_text("RULES = 1\n", encoding="utf-8")
    (folder / "tasks/errors.py").write_text("ERRORS = 1\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def lock_of(project: Path, *paths: str) -> dict[str, Any]:
    """Return dvc.lock as DVC writes it now for a stage with these code dependencies."""
    return {"stages": {"gate@r1": {"deps": [{"path": path, "md5": full_digest(project / path)["md5"]} for path in paths]}}}


def findings(project: Path, lock: dict[str, Any]) -> list[Finding]:
    """Return what an audit says of the code in the lock; the stage ran at the project's only commit."""
    state = {"commit": git(project, "rev-parse", "HEAD").strip(), "dirty": False, "diff_sha256": None, "diff": None}
    copies = {"gate@r1": RECEIPT}
    receipts: Any = {"gate@r1": {"stage": "gate@r1", "git": state}}
    evidence = Evidence(project, project / "cache", copies, receipts, ["gate@r1"], copies, lock, {}, {})
    scratch = project.with_name("scratch")
    scratch.mkdir()
    return locked_code(evidence, snapshots(evidence, scratch))


def test_code_as_git_has_it_passes(project: Path) -> None:
    assert findings(project, lock_of(project, "tasks/gates", "tasks/errors.py")) == []


@pytest.mark.parametrize("path", ["tasks/gates/x.py", "tasks/gates/more/x.py", "tasks/x.py"])
def test_a_file_that_git_does_not_know_is_named(project: Path, path: str) -> None:
    """DVC digests a folder with all that lies in it, so the lock of an honest run names other code than Git has."""
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("X = 1\n", encoding="utf-8")
    [finding] = findings(project, lock_of(project, "tasks/gates", *([path] if path == "tasks/x.py" else [])))
    assert (finding.name, finding.subject, finding.result) == ("dvc.lock", path, "FAIL")
    assert finding.sentence.startswith("is not in Git, and dvc.lock counts it as code of gate@r1: commit it or remove it")


def test_a_file_that_came_after_the_run_is_no_fault(project: Path) -> None:
    lock = lock_of(project, "tasks/gates")
    (project / "tasks/gates/x.py").write_text("X = 1\n", encoding="utf-8")
    assert findings(project, lock) == []


def test_other_code_is_not_blamed_on_a_file_that_git_does_not_know(project: Path) -> None:
    (project / "tasks/gates/x.py").write_text("X = 1\n", encoding="utf-8")
    lock = lock_of(project, "tasks/gates")
    lock["stages"]["gate@r1"]["deps"][0]["md5"] = "0" * 32 + ".dir"
    [finding] = findings(project, lock)
    assert (finding.subject, finding.sentence) == ("tasks/gates", "gate@r1: dvc.lock names other code than Git recorded")


def test_a_commit_that_a_shallow_clone_lacks_is_unknown_with_how_to_get_it(project: Path, tmp_path: Path) -> None:
    first = git(project, "rev-parse", "HEAD").strip()
    git(project, "commit", "-q", "--allow-empty", "-m", "results")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{project}", "clone")
    check = _commit(tmp_path / "clone", first)
    assert (check.result, "git fetch --unshallow" in check.sentence) == ("UNKNOWN", True)
    assert "unshallow" not in _commit(project, "0" * 40).sentence
    git(tmp_path / "clone", "fetch", "-q", "--unshallow")
    assert _commit(tmp_path / "clone", first).result == "PASS"
